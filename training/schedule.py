"""Learning rate over steps, and the running average of weights."""

import math

import torch
from torch import nn


def warmup_cosine(step: int, *, num_steps: int, num_warmup_steps: int, peak: float, final: float) -> float:
    """Linear from 0 to `peak`, then half a cosine to `final` (Loshchilov and Hutter 2017)."""
    if step < num_warmup_steps:
        return peak * (step + 1) / num_warmup_steps
    progress = min(1.0, (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps))
    return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2


class WeightAverage:
    """Exponential moving average of parameters and floating-point buffers.

    The decay grows over the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items() if v.is_floating_point()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's weights into the average."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        current = model.state_dict()
        for name, average in self.weights.items():
            average.lerp_(current[name], 1 - decay)
