"""Linear probes of each stream of a predictor: fitted on the clips of the split "train", chosen on those of "val".

Clips are read from their files as a server reads them, one window of each. What labels the predictor itself
knows, if any, does not matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.manifests import Item
from media.spec import ClipSpec

from .clip_predictions import STREAMS, ClipAnswers, Progress, answer_clips
from .clip_scores import Judge
from .linear_probe import Labelled, linear_probe
from .predictors import Predictor

FITTED_ON, CHOSEN_ON = "train", "val"


@dataclass(frozen=True, slots=True)
class _Split:
    """Answers to the clips of a split, and the judge of their labels."""

    name: str
    answers: ClipAnswers
    judge: Judge

    def labelled(self, stream: str) -> Labelled:
        found = self.answers.streams.get(None, {}).get(stream)
        if found is None:
            raise ValueError(
                f"no clip of {self.name!r} answers for the stream {stream!r}; a probe needs some there"
            )
        return Labelled(features=found.features, items=found.items, judge=self.judge)


def probe_clips(
    predictor: Predictor,
    items: Sequence[Item],
    spec: ClipSpec,
    *,
    split: str,
    streams: Sequence[str] = tuple(STREAMS),
    multi_label: bool = False,
    groups: Mapping[str, str] | None = None,
    num_resamples: int = 1000,
    on_progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Tables of a split by stream.

    Args:
        predictor: whose features are weighed.
        items: of all splits, with labels.
        spec: the predictor's.
        split: to report; of "val", by which probes are chosen, the scores flatter.
        streams: see `answer_clips`.
        multi_label: see `Judge`.
        groups: see there.
        num_resamples: see there.
        on_progress: told how many of how many clips are read.

    Returns:
        What `linear_probe` says, or no more than that there are 0 `clips`; and `unanswered` by reason.

    Raises:
        ValueError: no labels, no clips of a split, or clips that answer for a stream in `split` but not where
            it is fitted or chosen.
    """
    targets = {label: i for i, label in enumerate(sorted({label for item in items for label in item.labels}))}
    if not targets:
        raise ValueError(f"none of {len(items)} clips has a label; a probe is fitted to labels")
    chosen = {name: [item for item in items if item.split == name] for name in (FITTED_ON, CHOSEN_ON, split)}
    if lacking := [name for name, of_split in chosen.items() if not of_split]:
        raise ValueError(
            f"no clip is of the splits {lacking}; a probe is fitted on {FITTED_ON!r}, chosen on {CHOSEN_ON!r}"
        )
    total, done, found = sum(map(len, chosen.values())), 0, {}
    for name, of_split in chosen.items():
        judge = Judge(of_split, targets, multi_label=multi_label, groups=groups, num_resamples=num_resamples)
        answers = answer_clips(
            predictor,
            of_split,
            spec,
            streams=streams,
            on_progress=lambda now, _, done=done: on_progress(done + now, total) if on_progress else None,
        )
        found[name], done = _Split(name, answers, judge), done + len(of_split)
    return {stream: _table(stream, found[FITTED_ON], found[CHOSEN_ON], found[split]) for stream in streams}


def _table(stream: str, train: _Split, val: _Split, test: _Split) -> dict[str, Any]:
    has_answers = stream in test.answers.streams.get(None, {})
    table = (
        linear_probe(*(split.labelled(stream) for split in (train, val, test)))
        if has_answers
        else {"clips": 0}
    )
    return table | {"unanswered": dict(test.answers.unanswered[stream])}
