"""All measures of a model on a split of the collections, as rows of one table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets.vocabulary import NUM_AUDIOSET_LABELS, Vocabulary, everyday_vocabulary
from evaluation.predictors import Predictor
from media.clip import Clip, Modality
from media.spec import ClipSpec
from training.distillation.scores import agreement, precision_against
from verification.scored_model import ScoredModel

from .calibration import answer_calibration, pair_calibration
from .clips import Answers, SplitClips, answers, read_collections
from .empty_clips import black_pictures, noise_pictures, silences
from .pairs import CONDITIONS, Pairs
from .restricted import RestrictedTask, by_label, is_right, restricted_tasks
from .shared_space import found_tables, matching
from .teachers import JOINED, TeacherAnswers, ask_teachers

SEED = 0
THRESHOLD = 0.5
BELOW_LITE0 = 0.01
SILENCE = "silence"
LEAST = {
    "ESC-10": 0.96, "instruments": 0.85, "sights": 0.92, "pairs, clean": 0.98, "pairs, noisy sound": 0.90,
    "pairs, noise for picture": 0.90, "nothing": 0.95, "teachers, precision": 0.90,
    "teachers, agreement": 0.80, "found": 0.60,
}  # fmt: skip
MOST_CALIBRATION_ERROR = 0.05
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRow:
    """One measure."""

    section: str
    name: str
    count: int
    """Clips, pairs or labels that it is over."""
    value: float
    least: float | None = None
    most: float | None = None
    teachers: dict[str, float] = field(default_factory=dict)
    """The same measure of each teacher."""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measures:
    """All rows, and what was left out."""

    rows: list[MeasureRow]
    notes: list[str]


def measure(
    model: ScoredModel, data: Path, split: str, *, teachers: Path | None = None, say: Say = lambda _: None
) -> Measures:
    """Measure a model of the label table on a split.

    Args:
        model: see `open_everyday`.
        data: folder of the collections.
        split: val or test.
        teachers: folder of the teachers' files; None: no teacher is asked.
        say: told what is done next.

    Raises:
        ManifestError: a collection or the split is not there.
    """
    vocabulary = everyday_vocabulary()
    say("decoding")
    clips = read_collections(data, split, model.spec)
    run = _Measurement(model.predictor, model.spec, clips, vocabulary, say)
    taught = TeacherAnswers(len(vocabulary))
    if teachers is not None:
        say("teachers")
        taught = ask_teachers(teachers, clips, model.spec, len(vocabulary))
    rows = [
        *run.restricted(taught), *run.pairs(), *run.against_teachers(taught), *run.calibration(),
        *run.nothing(), *run.found(),
    ]  # fmt: skip
    notes = [f"{file} does not decode" for file in clips.failures] + taught.missing
    return Measures(rows, notes)


class _Measurement:
    """A model's answers to the clips, and measures of them."""

    def __init__(
        self, predictor: Predictor, spec: ClipSpec, clips: SplitClips, vocabulary: Vocabulary, say: Say
    ) -> None:
        self._predictor, self._spec, self._clips, self._vocabulary = predictor, spec, clips, vocabulary
        self._tasks = restricted_tasks(clips, vocabulary)
        self._numbers = {
            name: [i for i, item in enumerate(clips.items) if item.modality == name]
            for name in ("audio", "video")
        }
        self._answers: dict[str, Answers] = {}
        for name, numbers in self._numbers.items():
            say(f"{name} stream, {len(numbers)} clips")
            self._answers[name] = answers(predictor, Modality(name), [clips.windows[i] for i in numbers])
        say("pairs")
        self._pairs = Pairs(clips, spec, seed=SEED)
        self._said_of_pairs = {
            (condition, modality): self._pairs.answers(predictor, condition, modality)
            for condition in CONDITIONS
            for modality in (Modality.FUSED, Modality.AUDIO, Modality.VIDEO)
        }
        self._pair_tasks = {
            Modality.FUSED: self._pairs.task(vocabulary, ("audio", "video")),
            Modality.AUDIO: self._pairs.task(vocabulary, ("audio",)),
            Modality.VIDEO: self._pairs.task(vocabulary, ("video",)),
        }

    def restricted(self, taught: TeacherAnswers) -> list[MeasureRow]:
        """Accuracy of each stream of one modality, and of the teachers."""
        rows = []
        for task in self._tasks:
            if not task.clips:
                continue
            said = {"audio": taught.audio, "video": taught.video}[task.stream]
            others = {name: _accuracy(task, self._of(task, x)) for name, x in said.items()}
            title = task.name.rpartition(", of ")[0]
            least = LEAST.get(title)
            if title == "Caltech, ImageNet's" and "Lite0" in others:
                least = others["Lite0"] - BELOW_LITE0
            right = is_right(self._own(task), task.truth, task.meanings)
            rows.append(
                MeasureRow(
                    section="restricted",
                    name=task.name,
                    count=len(task.clips),
                    value=float(right.mean()),
                    least=least,
                    teachers=others,
                    details={"labels": by_label(right, task.truth)},
                )
            )
        return rows

    def pairs(self) -> list[MeasureRow]:
        """Accuracy on pairs: fused, and of each stream alone."""
        rows = []
        for (condition, modality), said in self._said_of_pairs.items():
            task = self._pair_tasks[modality]
            right = is_right(said.probabilities, task.truth, task.meanings)
            is_fused = modality == Modality.FUSED
            rows.append(
                MeasureRow(
                    section="pairs",
                    name=f"{condition}: {modality if is_fused else f'{modality} alone'}",
                    count=len(task.clips),
                    value=float(right.mean()),
                    least=LEAST[f"pairs, {condition}"] if is_fused else None,
                    details={"labels": by_label(right, task.truth)},
                )
            )
        return rows

    def against_teachers(self, taught: TeacherAnswers) -> list[MeasureRow]:
        """How near the audio stream comes to its teachers on the first window of each sound."""
        if not taught.first_window:
            return []
        names = list(taught.first_window)
        truth = taught.first_window[JOINED if JOINED in names else names[0]][:, :NUM_AUDIOSET_LABELS]
        said = {name: x[:, :NUM_AUDIOSET_LABELS] for name, x in taught.first_window.items()}
        own = self._answers["audio"].first_window[:, :NUM_AUDIOSET_LABELS]
        agree = MeasureRow(
            section="teachers",
            name="same best label of AudioSet's",
            count=len(truth),
            value=agreement(own, truth),
            least=LEAST["teachers, agreement"],
            teachers={name: agreement(x, truth) for name, x in said.items()},
        )
        precision = precision_against(own, truth)
        if precision is None:
            return [agree]
        others = {name: precision_against(x, truth) for name, x in said.items()}
        row = MeasureRow(
            section="teachers",
            name="mean average precision",
            count=precision[1],
            value=precision[0],
            least=LEAST["teachers, precision"],
            teachers={name: x[0] for name, x in others.items() if x is not None},
        )
        return [row, agree]

    def calibration(self) -> list[MeasureRow]:
        """Calibration error of each stream, over pairs of clip and label and over best answers."""
        clean = self._said_of_pairs["clean", Modality.FUSED].probabilities
        by_stream: dict[str, list[tuple[RestrictedTask, np.ndarray]]] = {
            name: [
                (task, self._own(task))
                for task in self._tasks
                if task.stream == name and task.name.startswith(wanted)
            ]
            for name, wanted in (
                ("audio", ("ESC-10", "instruments, of")),
                ("video", ("sights, of", "Caltech, all")),
            )
        }
        by_stream["fused"] = [(self._pair_tasks[Modality.FUSED], clean)]
        rows = []
        for name, tasks in by_stream.items():
            error, count = pair_calibration(tasks, self._vocabulary)
            num_clips = sum(len(task.clips) for task, _ in tasks)
            rows += [
                MeasureRow(
                    section="calibration error",
                    name=f"{name}, clip and label",
                    count=count,
                    value=error,
                    most=MOST_CALIBRATION_ERROR,
                ),
                MeasureRow(
                    section="calibration error",
                    name=f"{name}, best answer",
                    count=num_clips,
                    value=answer_calibration(tasks),
                ),
            ]
        return rows

    def nothing(self) -> list[MeasureRow]:
        """Share of clips that show and sound of nothing of which no label is above the threshold.

        That silence is called `Silence` counts as a label in one row, and not in the next.
        """
        noise, silence = noise_pictures(self._spec, seed=SEED), silences(self._spec, seed=SEED)
        both = [
            replace(x, audio=y.audio, audio_seconds=y.audio_seconds)
            for x, y in zip(noise, silence, strict=False)
        ]
        cases: list[tuple[str, Modality, Sequence[Clip]]] = [
            ("noise for a picture", Modality.VIDEO, noise),
            ("black picture", Modality.VIDEO, black_pictures(self._spec)),
            ("silence", Modality.AUDIO, silence),
            ("noise and silence, fused", Modality.FUSED, both),
        ]
        rows = []
        for name, modality, clips in cases:
            said = answers(self._predictor, modality, [[clip] for clip in clips]).probabilities
            above = (said > THRESHOLD) & self._vocabulary.stream_mask(str(modality))
            rows.append(self._nothing(name, above))
            if modality != Modality.VIDEO:
                above[:, self._vocabulary.index[SILENCE]] = False
                rows.append(self._nothing(f"{name}, but for Silence", above))
        return rows

    def _nothing(self, name: str, above: np.ndarray) -> MeasureRow:
        counts = {self._vocabulary.labels[i].id: int(above[:, i].sum()) for i in _best(above.sum(0))}
        return MeasureRow(
            section=f"no label above {THRESHOLD:g}",
            name=name,
            count=len(above),
            value=float((~above.any(1)).mean()),
            least=LEAST["nothing"],
            details={"above": counts},
        )

    def found(self) -> list[MeasureRow]:
        """Precision at 10 in the shared space."""
        items = {name: [self._clips.items[i] for i in numbers] for name, numbers in self._numbers.items()}
        matches = matching(items["audio"], items["video"], self._vocabulary)
        if not matches.any():
            return []
        tables = found_tables(self._answers["audio"].embedding, self._answers["video"].embedding, matches)
        return [
            MeasureRow(
                section="shared space, precision at 10",
                name=f"{name} (chance {table.chance:.2f}, at best {table.best_possible:.2f})",
                count=table.queries,
                value=table.precision,
                least=LEAST["found"],
                details={
                    "keys": table.keys,
                    "chance": table.chance,
                    "best_possible": table.best_possible,
                    "within_matches": table.within_matches,
                },
            )
            for name, table in tables.items()
        ]

    def _own(self, task: RestrictedTask) -> np.ndarray:
        return self._of(task, self._answers[task.stream].probabilities)

    def _of(self, task: RestrictedTask, rows: np.ndarray) -> np.ndarray:
        """Rows of a task's clips, of rows of all clips of its modality."""
        place = {number: k for k, number in enumerate(self._numbers[task.stream])}
        return rows[[place[i] for i in task.clips]]


def _accuracy(task: RestrictedTask, probabilities: np.ndarray) -> float:
    return float(is_right(probabilities, task.truth, task.meanings).mean())


def _best(counts: np.ndarray, num: int = 5) -> list[int]:
    return [int(i) for i in np.argsort(-counts, kind="stable")[:num] if counts[i]]


def to_json(measures: Measures, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The measures, and what they were made of, as JSON holds them."""
    rows = [{name: getattr(row, name) for name in MeasureRow.__dataclass_fields__} for row in measures.rows]
    return {**facts, "rows": rows, "notes": measures.notes}
