"""Recipe: every number of a training run, read from one TOML file; an unknown key is an error."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from datasets.manifests import Item, Spans, is_unpaired
from media.spec import ClipSpec
from models.presets import preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Strengths of the augmentations; probabilities in [0, 1]. Zero turns one off."""

    min_crop_area: float = 0.35  # of the picture
    max_rotation_degrees: float = 10.0
    pan_zoom_probability: float = 0.5  # that the camera moves over a still
    colour_jitter: float = 0.4
    grey_probability: float = 0.1
    erase_probability: float = 0.25
    max_shift_pixels: int = 8  # of films that are not shown by a camera
    mirror_probability: float = 0.5
    max_time_stretch: float = 0.15
    max_frequency_shift: float = 4.0  # mel bins
    max_gain_db: float = 10.0
    max_tilt_db: float = 6.0
    noise_probability: float = 0.4
    noise_snr_db: tuple[float, float] = (-5.0, 30.0)
    time_mask_frames: int = 64  # SpecAugment, twice
    frequency_mask_bins: int = 10  # SpecAugment, twice
    mixup_probability: float = 0.5
    mixup_alpha: float = 0.6
    cutmix_probability: float = 0.25
    ruin_probability: float = (
        0.1  # that an item is replaced by noise, so that fusion learns to rely on the other
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """Whose answers are learned, and of what. Probabilities lie in [0, 1]."""

    audio_teachers: tuple[str, ...] = ()
    """Files, relative to the folder of the data; the first also gives the audio stem its first weights."""
    video_teachers: tuple[str, ...] = ()
    """Names of networks; the first also gives the video stem its first weights."""
    num_sounds: int = 6_000  # windows that are made once, with what the teachers say
    num_pictures: int = 7_000
    mix_probability: float = 0.5  # that a window has a second sound in it
    mix_snr_db: tuple[float, float] = (-5.0, 15.0)
    noise_probability: float = 0.2
    noise_snr_db: tuple[float, float] = (-5.0, 25.0)
    max_gain_db: float = 10.0
    min_crop_area: float = 0.35  # of a picture
    other_crop_probability: float = 0.3  # that the frames of a clip are different crops of a picture
    certain_probability: float = 0.95  # least target of a label that the data itself gives
    sure_probability: float = 0.5  # from which on a label counts as heard or seen, for pairs of one thing


class Pairs(StrEnum):
    """Where a sound's picture comes from."""

    AUTO = (
        "auto"  # by label where sounds and pictures are files of their own with one label each, else by clip
    )
    BY_LABEL = "by_label"  # any picture of its label
    BY_CLIP = "by_clip"  # its own: the two were recorded together


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run.

    Raises:
        ValueError: an unknown key, or numbers that contradict each other.
    """

    preset: str = "vit-tiny"
    model: dict[str, Any] = field(default_factory=dict)
    clip_spec: dict[str, Any] = field(default_factory=dict)  # any numbers of `media.ClipSpec`
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    num_steps: int = 2_500
    pairs: Pairs = Pairs.AUTO
    supervised: bool = True  # if not, contrast between the streams alone: pre-training, no labels are read
    multi_label: bool = False  # any number of labels per clip: binary cross-entropy
    spans: Spans = (
        Spans.EACH
    )  # or "whole": a file that a list names spans of is one clip, with all their labels
    num_clips: int = 64  # co-recorded clips per step, over all ranks
    modality: str = "both"  # or "audio", "video": a run on sound or on picture alone
    alone_share: float = (
        0.25  # of the clips of a step, read by fusion once more by audio alone and by video alone
    )
    max_jitter_seconds: float = 0.0  # of windows around spans shorter than they
    num_audio: int = 32  # audio items per step
    num_video: int = 32  # video items per step
    num_pairs: int = 16  # rows per step whose sound and picture share their label
    num_mixed_pairs: int = 16  # rows per step that pair items at random: the target is shared by both labels
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-5
    num_warmup_steps: int = 150
    layer_decay: float = 1.0  # each layer below the heads learns by this factor more slowly
    freeze: tuple[str, ...] = ()  # parts that keep the weights they start from, see `adapt.freeze`
    freeze_statistics: bool = False  # of batch norms, whose weights go on learning
    lora_rank: int = 0  # if not 0, the trunk learns by low-rank differences alone
    lora_alpha: float = 16.0
    weight_decay: float = 0.05
    max_gradient_norm: float = 1.0
    label_smoothing: float = 0.1
    fusion_weight: float = 1.0
    overall_weight: float = 0.5
    contrastive_weight: float = 0.2
    fusion_contrast: float = (
        1.0  # weight of fusion's contrast with audio and with video, beside theirs with each other
    )
    distillation_weight: float = 0.0
    distillation: Distillation | None = None  # learn what teachers say, of the everyday vocabulary
    temperature: float = 0.08
    average_decay: float = 0.998
    learn_temperature: bool = False
    num_chunks: int = 1  # parts of a step's clips of which one is in memory; pre-training keeps all negatives
    checkpoint_activations: bool = False  # less memory, a second forward pass
    num_workers: int = 1  # processes that draw batches of clips ahead
    bfloat16: bool = True
    evaluate_every: int = 250
    save_every: int = 125

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", Pairs(self.pairs))
        object.__setattr__(self, "spans", Spans(self.spans))
        object.__setattr__(self, "freeze", tuple(self.freeze))
        if self.distillation is not None and not (self.supervised and self.multi_label):
            raise ValueError("[distillation] learns independent probabilities; set multi_label = true")
        if self.num_clips % self.num_chunks:
            raise ValueError(f"{self.num_chunks=} must divide {self.num_clips=}")
        if self.modality not in ("both", "audio", "video"):
            raise ValueError(f"modality={self.modality!r}; choose both, audio or video")
        if self.modality != "both" and self.pairs == Pairs.BY_LABEL:
            raise ValueError(
                f"modality={self.modality!r} with pairs='by_label', which pairs sounds with pictures; "
                "set pairs = 'by_clip', or leave modality out"
            )
        if min(self.num_steps, self.num_audio, self.num_video, self.num_clips) < 1:
            raise ValueError("num_steps, num_audio, num_video and num_clips must be at least 1")
        if not (self.supervised or (self.contrastive_weight and self.pairs != Pairs.BY_LABEL)):
            raise ValueError(
                "without supervision nothing is learned but by contrast of co-recorded pairs: "
                "set contrastive_weight, and pairs = 'by_clip'"
            )
        if self.num_pairs > min(self.num_audio, self.num_video):
            raise ValueError(f"{self.num_pairs=} exceeds {self.num_audio=} or {self.num_video=}")

    @property
    def spec(self) -> ClipSpec:
        """The preprocessing numbers of the run: those of the preset, with the changes of `clip_spec`.

        Raises:
            ValueError: there is no such preset, or `clip_spec` has an unknown key.
        """
        numbers = preset_clip_spec(self.preset).to_dict() | self.clip_spec
        unknown = sorted(numbers.keys() - {f.name for f in fields(ClipSpec)})
        if unknown:
            raise ValueError(f"unknown keys {unknown} for clip_spec; see media/spec.py for those there are")
        return ClipSpec.from_dict(numbers)

    def with_pairs_for(self, items: Sequence[Item]) -> Self:
        """The recipe with `pairs` decided by what the items hold, where it is "auto"."""
        if self.pairs != Pairs.AUTO:
            return self
        by_label = self.supervised and self.modality == "both" and is_unpaired(items)
        return replace(self, pairs=Pairs.BY_LABEL if by_label else Pairs.BY_CLIP)

    def to_dict(self) -> dict[str, Any]:
        """As it would stand in TOML."""
        numbers: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return numbers

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recipe file.

        Raises:
            ValueError: it is no TOML, or has an unknown key.
        """
        try:
            keys = tomllib.loads(Path(path).read_text())
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error
        tables = {name: keys.pop(name) for name in _TABLES if name in keys}
        _check_keys(keys, cls, path)
        for name, table in tables.items():
            _check_keys(table, _TABLES[name], path)
            numbers: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
            keys[name] = _TABLES[name](**numbers)
        return cls(**keys)


_TABLES: dict[str, type[Augmentation] | type[Distillation]] = {
    "augmentation": Augmentation,
    "distillation": Distillation,
}


def _check_keys(table: Mapping[str, Any], known: type, path: str | Path) -> None:
    unknown = sorted(table.keys() - {f.name for f in fields(known)})
    if unknown:
        raise ValueError(f"{path}: unknown keys {unknown} for {known.__name__}")


def preset_clip_spec(name: str) -> ClipSpec:
    """The default preprocessing for a preset's input shapes and normalisation.

    Raises:
        ValueError: there is no such preset.
    """
    config = preset(name, num_classes=1)
    return ClipSpec(
        num_mel_frames=config.audio_shape[0],
        num_mel_bins=config.audio_shape[1],
        num_video_frames=config.video_shape[0],
        frame_size=config.video_shape[1],
        audio_mean=config.audio_mean,
        audio_std=config.audio_std,
        video_mean=config.video_mean,
        video_std=config.video_std,
    )


def trained_spans(run: Mapping[str, Any]) -> Spans:
    """What one clip was in a run; a span, if its recipe does not say or there was none.

    Args:
        run: what a checkpoint says of it, as `extra`; the manifest of a bundle says the same, as `training`.
    """
    return Spans(run.get("recipe", {}).get("spans", Spans.EACH))
