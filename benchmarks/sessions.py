"""Untrained models of presets, bundles of them, and ONNX Runtime sessions with pinned threads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from export.bundle_writer import ExportOptions, export_checkpoint
from media import ClipSpec
from models import ZorroModel, preset
from models.weights import save_checkpoint

from .measure import NUM_THREADS

SPECS = {
    "vit-base": ClipSpec(num_mel_frames=256, num_mel_bins=128, num_video_frames=8, frame_size=224),
    "vit-tiny": ClipSpec(),
}
NUM_CLASSES = 30


def untrained(name: str) -> ZorroModel:
    """The model of a preset with random weights; its speed does not depend on them."""
    torch.manual_seed(0)
    return ZorroModel(preset(name, num_classes=NUM_CLASSES)).eval()


def write_untrained_bundle(name: str, folder: Path, *, variants: Sequence[str] = ("fp32",)) -> Path:
    """Export the untrained model of a preset as the bundle `folder`/NAME/1; returns its path.

    A large preset takes minutes.
    """
    checkpoint = folder / f"{name}-checkpoint"
    labels = [{"id": str(i), "label": str(i), "modalities": ["audio", "video"]} for i in range(NUM_CLASSES)]
    save_checkpoint(checkpoint, untrained(name), clip_spec=SPECS[name].to_dict(), labels=labels)
    options = ExportOptions(variants=variants)
    return export_checkpoint(checkpoint, folder / name / "1", name=name, version="1", options=options)


def random_inputs(name: str) -> dict[str, np.ndarray]:
    """One window of noise, with the mean and spread of real media."""
    random, spec = np.random.default_rng(1), SPECS[name]
    audio = random.normal(spec.audio_mean, spec.audio_std, (1, *spec.audio_shape)).astype(np.float32)
    return {"audio": audio, "video": random.integers(0, 256, (1, *spec.video_shape), dtype=np.uint8)}


def open_session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """A session with `NUM_THREADS` threads, which stop spinning as soon as a run ends."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = NUM_THREADS
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
