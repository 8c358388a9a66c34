"""Open what is scored: a checkpoint's model or a bundle's graphs, as one kind of predictor."""

from dataclasses import dataclass
from pathlib import Path

from datasets.manifests import Spans
from evaluation.predictors import ModelPredictor, Predictor
from evaluation.stream_inputs import SERVED_STREAMS, STREAM_INPUTS
from export.checkpoint_scores import learned_scores
from media import ClipSpec
from models.weights import MANIFEST_FILE as CHECKPOINT_FILE
from models.weights import load_checkpoint
from runtime import Zorro
from runtime.bundle import MANIFEST_FILE as BUNDLE_FILE
from runtime.scores import Scores
from training.recipe import trained_spans

from .checkpoint_source import open_checkpoint_source


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A predictor, and what scoring needs to know of it."""

    predictor: Predictor
    spec: ClipSpec
    targets: dict[str, int]
    """Index of each label; empty if the model was trained by contrast alone."""
    spans: Spans
    """What one clip was when the model was trained."""
    scores: Scores
    """How its scores come from its logits."""

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that it has."""
        return SERVED_STREAMS if isinstance(self.predictor, Zorro) else tuple(STREAM_INPUTS)

    @property
    def is_sigmoid(self) -> bool:
        """Whether each of its labels stands for itself."""
        return self.scores is Scores.SIGMOID


def open_model(folder: Path, variant: str | None = None) -> ScoredModel:
    """Open the checkpoint or the bundle in `folder`.

    Args:
        folder: of a checkpoint or a bundle.
        variant: of a bundle; default what it gives to a CPU.

    Raises:
        ValueError: the folder holds neither, or a variant of a checkpoint was asked for.
        BundleError, CheckpointError: it cannot be used.
    """
    if (folder / BUNDLE_FILE).is_file():
        return _open_bundle(folder, variant)
    if (folder / CHECKPOINT_FILE).is_file():
        if variant is not None:
            raise ValueError(f"{folder} is a checkpoint, which has no variants; leave {variant!r} out")
        return _open_checkpoint(folder)
    raise ValueError(f"{folder} holds neither {CHECKPOINT_FILE} nor {BUNDLE_FILE}")


def _open_bundle(folder: Path, variant: str | None) -> ScoredModel:
    model = Zorro.open(folder, variant=variant)
    bundle = model.bundle
    return ScoredModel(
        predictor=model,
        spec=bundle.clip_spec,
        targets={label.id: i for i, label in enumerate(bundle.labels)},
        spans=trained_spans(bundle.manifest.get("training", {})),
        scores=bundle.scores,
    )


def _open_checkpoint(folder: Path) -> ScoredModel:
    loaded = load_checkpoint(open_checkpoint_source(folder).checkpoint)
    return ScoredModel(
        predictor=ModelPredictor(loaded.model),
        spec=ClipSpec.from_dict(loaded.clip_spec),
        targets={str(label["id"]): i for i, label in enumerate(loaded.labels)},
        spans=trained_spans(loaded.extra),
        scores=learned_scores(loaded),
    )
