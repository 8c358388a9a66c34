"""YAMNet (Plakal and Ellis, AudioSet): 521 labels of AudioSet, of 0.975 s of 16 kHz sound at a time.

The TFLite file names its labels inside, as an archive appended to it.
"""

import math
import zipfile
from pathlib import Path

import numpy as np
import scipy.signal
from jaxtyping import Float32

from datasets.vocabulary import NUM_AUDIOSET_LABELS, everyday_vocabulary
from media.spec import ClipSpec
from models import ZorroModel

from .errors import TeacherError

SAMPLE_RATE, NUM_SAMPLES = 16_000, 15_600


class YamNet:
    """YAMNet in TFLite; see `teachers.AudioTeacher`.

    Raises:
        ModuleNotFoundError: ai-edge-litert is not installed.
        ValueError: labels of the file are not AudioSet's.
    """

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        names = {label.name: i for i, label in enumerate(everyday_vocabulary().labels[:NUM_AUDIOSET_LABELS])}
        with zipfile.ZipFile(path) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(".txt"))
            labels = archive.read(member).decode().split("\n")
        self._columns = [i for i, label in enumerate(labels) if label in names]
        self.knows = [names[labels[i]] for i in self._columns]
        if len(self.knows) < NUM_AUDIOSET_LABELS // 2:
            raise ValueError(f"{path} names {len(self.knows)} labels of AudioSet, wanted most of its 527")
        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def probabilities(
        self, waveform: Float32[np.ndarray, " samples"], spec: ClipSpec
    ) -> Float32[np.ndarray, " known"]:
        """See `AudioTeacher`: the mean over pieces that cover the window."""
        pieces = np.stack([self._of_piece(piece) for piece in _pieces(waveform, spec)])
        found: np.ndarray = pieces.mean(axis=0)
        return found

    def start(self, model: ZorroModel) -> None:  # noqa: ARG002
        """See `AudioTeacher`."""
        raise TeacherError(
            "YAMNet has another shape than the audio stem; name another of audio_teachers first"
        )

    def _of_piece(self, piece: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " known"]:
        self._interpreter.set_tensor(self._input, piece)
        self._interpreter.invoke()
        found: np.ndarray = self._interpreter.get_tensor(self._output)[0, self._columns]
        return found


def _pieces(
    waveform: Float32[np.ndarray, " samples"], spec: ClipSpec
) -> list[Float32[np.ndarray, " samples"]]:
    """Pieces of the network's length at its rate, as few as cover the window, evenly spread."""
    shared = math.gcd(SAMPLE_RATE, spec.sample_rate)
    x = scipy.signal.resample_poly(waveform, SAMPLE_RATE // shared, spec.sample_rate // shared)
    x = np.pad(x.astype(np.float32).clip(-1, 1), (0, max(0, NUM_SAMPLES - len(x))))
    starts = np.linspace(0, len(x) - NUM_SAMPLES, math.ceil(len(x) / NUM_SAMPLES))
    return [x[round(start) : round(start) + NUM_SAMPLES] for start in starts]
