"""Open what is scored: a checkpoint's model or a bundle's graphs, as one kind of predictor."""

from dataclasses import dataclass
from pathlib import Path

from datasets.manifests import Spans
from evaluation.clip_predictions import SERVED, STREAMS
from evaluation.predictors import ModelPredictor, Predictor
from export.checkpoint_scores import learned_scores
from media import ClipSpec
from models.weights import MANIFEST_FILE as CHECKPOINT_FILE
from models.weights import load_checkpoint
from runtime import Zorro
from runtime.bundle import MANIFEST_FILE as BUNDLE_FILE
from runtime.scores import Scores
from training.recipe import trained_spans

from .checkpoint_source import open_origin


@dataclass(frozen=True, slots=True)
class Target:
    """What is scored."""

    predictor: Predictor
    spec: ClipSpec
    targets: dict[str, int]
    """Index of each label; none where nothing but contrast was learned."""
    spans: Spans
    """What one clip was when it was trained."""
    scores: Scores
    """How its scores come from its logits."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Those that it answers for."""
        return SERVED if isinstance(self.predictor, Zorro) else tuple(STREAMS)

    @property
    def is_sigmoid(self) -> bool:
        """Whether each of its labels stands for itself."""
        return self.scores is Scores.SIGMOID


def open_target(folder: Path, variant: str | None = None) -> Target:
    """What a checkpoint's or a bundle's folder holds.

    Raises:
        ValueError: the folder is neither checkpoint nor bundle.
    """
    if (folder / BUNDLE_FILE).is_file():
        model = Zorro.open(folder, variant=variant)
        bundle = model.bundle
        targets = {x.id: i for i, x in enumerate(bundle.labels)}
        return Target(
            model,
            bundle.clip_spec,
            targets,
            trained_spans(bundle.manifest.get("training", {})),
            bundle.scores,
        )
    if (folder / CHECKPOINT_FILE).is_file():
        if variant is not None:
            raise ValueError(f"{folder} is a checkpoint, which has no variants; leave {variant!r} out")
        loaded = load_checkpoint(open_origin(folder).checkpoint)
        spec, targets = (
            ClipSpec.from_dict(loaded.clip_spec),
            {str(x["id"]): i for i, x in enumerate(loaded.labels)},
        )
        return Target(
            ModelPredictor(loaded.model), spec, targets, trained_spans(loaded.extra), learned_scores(loaded)
        )
    raise ValueError(f"{folder} holds neither {CHECKPOINT_FILE} nor {BUNDLE_FILE}")
