"""ClipSpec: every number that turns media into arrays, in one place.

A model has learned from arrays made with these numbers, so they are stored in its checkpoint and bundle, and
a runtime refuses a graph whose `hash` differs. Means and standard deviations are applied inside the graph;
nothing in `media` uses them.

`LATER_NUMBERS` came after the first models. They are written only where they differ from their default, which
is what those models were trained with: a spec stored without them loads, and keeps its text and its hash.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

LATER_NUMBERS = (
    "fft_length", "first_centre", "symmetric_window", "unit_energy", "pre_emphasis", "crop_fraction",
)  # fmt: skip
"""Left out of a written spec at their default, and optional in one that is read; no other number is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """How a window of media becomes arrays.

    Raises:
        ValueError: the numbers contradict each other; the message says which and how.
    """

    sample_rate: int = 16_000  # Hz, mono
    window_length: int = 512  # samples of one Hann window: 32 ms
    hop_length: int = 160  # samples between mel frames: 10 ms
    num_mel_bins: int = 80
    min_hz: float = 0.0
    max_hz: float = 8_000.0
    log_offset: float = 1e-6  # added to the power before the log: -60 dB of full scale
    num_mel_frames: int = 512
    num_video_frames: int = 2
    frame_size: int = 128  # pixels, height and width
    audio_mean: float = -8.0  # of log_mel, over the training data
    audio_std: float = 4.0
    video_mean: tuple[float, float, float] = (127.5, 127.5, 127.5)  # of uint8 RGB
    video_std: tuple[float, float, float] = (63.75, 63.75, 63.75)
    fft_length: int | None = None  # samples of a Fourier transform, the window and zeros; None: window_length
    first_centre: int | None = None  # sample at the middle of mel frame 0; None: half of hop_length
    symmetric_window: bool = False  # Hann with equal first and last sample; else periodic
    unit_energy: bool = True  # whether the power is divided by the window's energy
    pre_emphasis: float = 0.0  # share of the sample before that is taken off each sample
    crop_fraction: float = 1.0  # of the shorter side of a picture, scaled, that the frame shows

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type is int and getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)} must be at least 1")
        if self.window_length < self.hop_length or (self.window_length - self.hop_length) % 2:
            raise ValueError(
                f"{self.window_length=} must exceed {self.hop_length=} by an even number, "
                "so that mel frames are centred on their hop"
            )
        if not 0 <= self.min_hz < self.max_hz <= self.sample_rate / 2:
            raise ValueError(f"need 0 <= {self.min_hz=} < {self.max_hz=} <= half of {self.sample_rate=}")
        if self.log_offset <= 0 or self.audio_std <= 0 or min(self.video_std) <= 0:
            raise ValueError("log_offset, audio_std and video_std must be positive")
        if self.num_fft_samples < self.window_length:
            raise ValueError(
                f"{self.fft_length=} is shorter than {self.window_length=}; it must hold a window"
            )
        if not 0 <= self.centre_of_first_frame <= self.window_length // 2:
            raise ValueError(f"need 0 <= {self.first_centre=} <= half of {self.window_length=}")
        if not (0 <= self.pre_emphasis < 1 and 0 < self.crop_fraction <= 1):
            raise ValueError(
                f"need 0 <= {self.pre_emphasis=} < 1 and 0 < {self.crop_fraction=} <= 1: both are shares"
            )

    @property
    def num_fft_samples(self) -> int:
        """Samples of one Fourier transform: `fft_length`, or by default `window_length`."""
        return self.window_length if self.fft_length is None else self.fft_length

    @property
    def centre_of_first_frame(self) -> int:
        """Sample at the middle of mel frame 0: `first_centre`, or by default the middle of the first hop."""
        return self.hop_length // 2 if self.first_centre is None else self.first_centre

    @property
    def num_samples(self) -> int:
        """Samples of one window of audio."""
        return self.num_mel_frames * self.hop_length

    @property
    def window_seconds(self) -> float:
        """Length in seconds of one window, the same for audio and video."""
        return self.num_samples / self.sample_rate

    @property
    def audio_shape(self) -> tuple[int, int]:
        """Shape (num_mel_frames, num_mel_bins)."""
        return (self.num_mel_frames, self.num_mel_bins)

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """Shape (num_video_frames, height, width, 3)."""
        return (self.num_video_frames, self.frame_size, self.frame_size, 3)

    @property
    def frame_offsets_seconds(self) -> tuple[float, ...]:
        """Times of the sampled video frames after the window's start: the middles of equal parts."""
        part_seconds = self.window_seconds / self.num_video_frames
        return tuple((i + 0.5) * part_seconds for i in range(self.num_video_frames))

    @property
    def hash(self) -> str:
        """sha256, in hex, of the numbers as canonical JSON: the same on every machine."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Numbers as JSON types, without `LATER_NUMBERS` at their default; `from_dict` is its inverse."""
        defaults = {field.name: field.default for field in fields(self) if field.name in LATER_NUMBERS}
        numbers: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {k: v for k, v in numbers.items() if k not in defaults or v != defaults[k]}

    @classmethod
    def from_dict(cls, numbers: dict[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a number is missing or unknown, or the numbers contradict each other.
        """
        names = {field.name for field in fields(cls)}
        missing = sorted(names - numbers.keys() - set(LATER_NUMBERS))
        unknown = sorted(numbers.keys() - names)
        if missing or unknown:
            raise ValueError(f"not a ClipSpec: {missing=}, {unknown=}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in numbers.items()}
        return cls(**plain)
