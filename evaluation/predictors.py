"""What evaluation runs: the `Predictor` protocol of checkpoints and bundles, and a torch model as one.

Nothing here needs scikit-learn, so that export can read clips without it.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float

from media.clip import Clip, Modality
from models.heads import StreamOutput
from models.mask import Stream
from models.zorro import ZorroModel

PREDICTOR_OUTPUTS = ("features", "embedding", "logits")


class Predictor(Protocol):
    """Outputs for each window: what a checkpoint's model and a bundle have in common."""

    def logits(self, modality: Modality, clips: Sequence[Clip]) -> Float[np.ndarray, "clips classes"]:
        """Logits of the stream that `modality` names."""
        ...

    def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, Float[np.ndarray, "clips dim"]]:
        """`features`, `embedding` and `logits` of the stream that `modality` names."""
        ...


class ModelPredictor:
    """A torch model as a `Predictor`."""

    def __init__(self, model: ZorroModel, max_batch_size: int = 32) -> None:
        self.model, self.max_batch_size = model, max_batch_size

    def logits(self, modality: Modality, clips: Sequence[Clip]) -> Float[np.ndarray, "clips classes"]:
        """See `Predictor`."""
        return self.outputs(modality, clips)["logits"]

    @torch.no_grad()
    def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, Float[np.ndarray, "clips dim"]]:
        """See `Predictor`. Fusion also runs on clips that have audio alone or video alone.

        Raises:
            ValueError: no clips, some lack what others have, or all lack what the stream reads.
        """
        if not clips:
            raise ValueError("got 0 clips; give at least 1")
        size = self.max_batch_size
        parts = [self._run(modality, clips[i : i + size]) for i in range(0, len(clips), size)]
        return {
            name: torch.cat([getattr(x, name) for x in parts]).float().cpu().numpy()
            for name in PREDICTOR_OUTPUTS
        }

    def _run(self, modality: Modality, clips: Sequence[Clip]) -> StreamOutput:
        audio = None if modality == Modality.VIDEO else self._stack([clip.audio for clip in clips])
        video = None if modality == Modality.AUDIO else self._stack([clip.video for clip in clips])
        if modality == Modality.FUSED:
            fused: StreamOutput = self.model(audio, video).fusion
            return fused
        given, stream = (audio, Stream.AUDIO) if modality == Modality.AUDIO else (video, Stream.VIDEO)
        if given is None:
            raise ValueError(f"the clips have no {modality} to answer from; ask another stream")
        if self.model.config.masking.leaks:  # its streams read fusion tokens, which forward_stream leaves out
            leaking: StreamOutput = getattr(self.model(**{stream.key: given}), stream.key)
            return leaking
        return self.model.forward_stream(stream, given)

    def _stack(self, arrays: Sequence[np.ndarray | None]) -> torch.Tensor | None:
        given = [array for array in arrays if array is not None]
        if given and len(given) < len(arrays):
            raise ValueError(
                f"{len(arrays) - len(given)} of {len(arrays)} clips lack what the others have; ask apart"
            )
        return torch.from_numpy(np.stack(given)).to(next(self.model.parameters()).device) if given else None
