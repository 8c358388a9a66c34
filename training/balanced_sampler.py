"""Draws items with every label equally likely."""

from collections.abc import Iterable

import torch


class BalancedSampler:
    """Draws items with every label equally likely.

    All randomness is from one generator, whose state can be kept.
    """

    def __init__(self, targets: Iterable[int], generator: torch.Generator) -> None:
        self.generator = generator
        self.items_of: dict[int, list[int]] = {}
        for i, target in enumerate(targets):
            self.items_of.setdefault(target, []).append(i)
        self.labels = sorted(self.items_of)

    def draw(self, count: int) -> list[int]:
        """Indices of `count` items: labels without repetition as far as they go, items at random.

        Raises:
            ValueError: there is nothing to draw from.
        """
        if count and not self.labels:
            raise ValueError(f"there are no items to draw {count} from")
        labels: list[int] = []
        while len(labels) < count:
            labels += [self.labels[i] for i in torch.randperm(len(self.labels), generator=self.generator)]
        return [self.draw_of(label) for label in labels[:count]]

    def draw_of(self, label: int) -> int:
        """Index of a random item of this label."""
        items = self.items_of[label]
        return items[int(torch.randint(len(items), (), generator=self.generator))]
