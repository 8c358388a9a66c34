"""A small untrained model: shapes of `tests.conftest`, seeded, so two are equal."""

from pathlib import Path

import torch

from media import ClipSpec, Modality
from models import ZorroModel, preset
from models.weights import save_checkpoint
from tests.small_models import SMALL

TINY_SPEC = ClipSpec(num_mel_frames=64, num_mel_bins=32, num_video_frames=2, frame_size=32)


def graphs_in(folder: Path) -> dict[Modality, Path]:
    """The three graphs in a folder."""
    return {modality: folder / f"{modality}.onnx" for modality in Modality}


def make_tiny_checkpoint(folder: Path, *, num_classes: int = 4, num_labels: int | None = None) -> Path:
    """Save an untrained model; labels are a, b, c and so on, as many as classes unless told otherwise."""
    torch.manual_seed(0)
    model = ZorroModel(preset("vit-tiny", num_classes=num_classes, **SMALL))
    names = [chr(ord("a") + i) for i in range(num_classes if num_labels is None else num_labels)]
    labels = [{"id": name, "label": name.upper(), "modalities": ["audio", "video"]} for name in names]
    save_checkpoint(folder, model, clip_spec=TINY_SPEC.to_dict(), labels=labels)
    return folder
