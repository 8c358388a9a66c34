"""Augmentation, in batches of tensors.

Video gets crops and cameras; audio gets crops, stretch, shift, tilt and noise.

Nothing here runs at evaluation. Sounds are moved about as spectrograms: `power = exp(log_mel) - log_offset`,
so that gain and noise act on power, as they would on the waveform.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.unpaired import UnpairedAudio, UnpairedVideo
from media.spec import ClipSpec

from .recipe import Augmentation


def audio_batch(sounds: list[UnpairedAudio], spec: ClipSpec, how: Augmentation) -> Tensor:
    """Augmented log-mel spectrograms, [batch, mel_frames, mel_bins]."""
    if not sounds:
        return torch.zeros(0, *spec.audio_shape)
    floor = math.log(spec.log_offset)
    x = torch.stack([_random_time_crop(sound.log_mel, spec.num_mel_frames, floor) for sound in sounds])
    return augment_audio(x, spec, how)


def augment_audio(x: Tensor, spec: ClipSpec, how: Augmentation) -> Tensor:
    """Augmented log-mel windows, [batch, mel_frames, mel_bins].

    They are stretched, shifted, tilted, and put in noise, and stripes of them are hidden.
    """
    if not len(x):  # a batch of pictures alone
        return x
    if how.max_time_stretch or how.max_frequency_shift:
        x = _stretch_and_shift(x, how, math.log(spec.log_offset))
    power = (x.exp() - spec.log_offset).clamp(min=0) * _gain_and_tilt(len(x), spec.num_mel_bins, how)
    noisy = torch.rand(len(x)) < how.noise_probability
    snr_db = torch.empty(len(x)).uniform_(*how.noise_snr_db)
    power = torch.where(noisy[:, None, None], add_noise_power(power, snr_db), power)
    return hide_stripes((power + spec.log_offset).log(), how)


def add_noise_power(power: Tensor, snr_db: Tensor) -> Tensor:
    """Add noise with a random spectral slope at the given ratio of mean powers, [batch] in dB."""
    slope = torch.linspace(-1, 1, power.shape[2]) * torch.randn(len(power), 1)
    noise = (
        torch.empty_like(power).exponential_() * slope.exp()[:, None]
    )  # power of Gaussian noise is exponential
    ratio = power.mean((1, 2)) / noise.mean((1, 2)) / 10 ** (snr_db / 10)
    return power + noise * ratio[:, None, None]


def video_batch(videos: list[UnpairedVideo], spec: ClipSpec, how: Augmentation) -> Tensor:
    """Augmented video, float 0 to 255, [batch, frames, height, width, 3]."""
    if not videos:
        return torch.zeros(0, *spec.video_shape)
    source = torch.stack([_random_frames(video_item.frames, spec.num_video_frames) for video_item in videos])
    B, T, C, _, _ = source.shape
    aspect = torch.tensor([video_item.aspect for video_item in videos])
    theta = _camera(aspect, T, how)
    grid = F.affine_grid(
        theta.flatten(0, 1), [B * T, C, spec.frame_size, spec.frame_size], align_corners=False
    )
    flat = source.flatten(0, 1).float()
    seen = F.grid_sample(flat, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    video = _jitter_colours(seen.unflatten(0, (B, T)), how)
    return _erase(video, how).clamp(0, 255).permute(0, 1, 3, 4, 2).contiguous()


def augment_video_windows(video: Tensor, how: Augmentation, *, mean: Tensor | None = None) -> Tensor:
    """Augmented windows of film, uint8 [batch, frames, height, width, 3].

    They are moved by whole pixels, mirrored, and given other light.

    All frames of a clip are treated alike. Far cheaper than the camera of `video_batch`, and enough where
    pictures are framed alike. With `mean`, [height, width, 3], it is the difference from it that is moved and
    lit, since a model that subtracts the mean picture would otherwise see the mean's own edges. Float, around
    0 to 255.
    """
    B, _, H, W, _ = video.shape
    margin = how.max_shift_pixels
    corners = torch.randint(0, 2 * margin + 1, (B, 2)).tolist()
    mirrored = (torch.rand(B) < how.mirror_probability).tolist()
    light = (torch.empty(B, 2).uniform_(-1, 1) * how.colour_jitter).tolist()
    centre = np.zeros((H, W, 3), np.float32) if mean is None else mean.numpy()
    seen = torch.empty(video.shape)
    around = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    for i, (y, x) in enumerate(corners):  # clip by clip, so that what is read and written stays in the cache
        moved = np.pad(video[i].numpy() - centre, around, mode="edge")[:, y : y + H, x : x + W]
        moved = moved[:, :, ::-1] if mirrored[i] else moved
        gain, offset = light[i]
        np.multiply(moved, np.float32(1 + gain), out=seen[i].numpy())
        seen[i].add_(torch.from_numpy(centre) + 64 * offset)
    return _erase(seen.permute(0, 1, 4, 2, 3), how).permute(0, 1, 3, 4, 2)


def mix_clips(
    audio: Tensor, video: Tensor, targets: Tensor, num_whole: int, how: Augmentation
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixup of the first `num_whole` clips with each other.

    Sound, picture and targets of a clip are mixed by one share.
    """
    if float(torch.rand(())) >= how.mixup_probability or num_whole < 2:
        return audio, video, targets
    share = torch.distributions.Beta(how.mixup_alpha, how.mixup_alpha).sample((num_whole,))
    share, other = torch.maximum(share, 1 - share), torch.randperm(num_whole)
    mixed = []
    for x in (audio, video, targets):
        weight = share.view(-1, *[1] * (x.dim() - 1))
        whole = weight * x[:num_whole] + (1 - weight) * x[other]
        mixed.append(torch.cat([whole, x[num_whole:]]))
    return mixed[0], mixed[1], mixed[2]


def mix_items(x: Tensor, targets: Tensor, how: Augmentation, *, cut: bool) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018) or, of pictures, CutMix (Yun et al. 2019) of the batch with itself.

    Args:
        x: [batch, ...]; for CutMix [batch, frames, height, width, 3].
        targets: [batch, classes], rows sum to one.
        how: the strengths.
        cut: whether CutMix may be chosen.
    """
    if not len(x):
        return x, targets
    choice = float(torch.rand(()))
    other = torch.randperm(len(x))
    beta = torch.distributions.Beta(how.mixup_alpha, how.mixup_alpha)
    if cut and choice < how.cutmix_probability:
        height, width = x.shape[2:4]
        side = math.sqrt(1 - float(torch.distributions.Beta(1.0, 1.0).sample()))
        rows, columns = _random_span(height, side), _random_span(width, side)
        x = x.clone()
        x[:, :, rows, columns] = x[other][:, :, rows, columns]
        kept = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        return x, kept * targets + (1 - kept) * targets[other]
    if choice < how.cutmix_probability * cut + how.mixup_probability:
        kept_each = beta.sample((len(x),))
        kept_each = torch.maximum(kept_each, 1 - kept_each)
        weight = kept_each.view(-1, *[1] * (x.dim() - 1))
        return weight * x + (1 - weight) * x[other], (
            kept_each[:, None] * targets + (1 - kept_each[:, None]) * targets[other]
        )
    return x, targets


def corrupt_audio(x: Tensor, replaced: Tensor) -> Tensor:
    """Replace the chosen items, bool [batch], by noise alone."""
    noise = torch.empty_like(x).exponential_().log() + torch.empty(len(x), 1, 1).uniform_(-10, 1)
    return torch.where(replaced[:, None, None], noise, x)


def corrupt_video(x: Tensor, replaced: Tensor) -> Tensor:
    """Replace the chosen items, bool [batch], by noise alone."""
    return torch.where(replaced.view(-1, 1, 1, 1, 1), torch.rand_like(x) * 255, x)


def _random_time_crop(log_mel: Tensor, num_frames: int, floor: float) -> Tensor:
    """A random crop of a spectrogram.

    A shorter recording is kept whole, at a random place or, half the time, at the start as when served.
    """
    room = len(log_mel) - num_frames
    start = int(torch.randint(abs(room) + 1, ()))
    if room >= 0:
        return log_mel[start : start + num_frames]
    start *= int(torch.randint(2, ()))
    return F.pad(log_mel, (0, 0, start, -room - start), value=floor)


def _stretch_and_shift(x: Tensor, how: Augmentation, floor: float) -> Tensor:
    """Stretch time and shift frequency by bilinear resampling; what comes from outside is silence."""
    bins = x.shape[2]
    theta = torch.zeros(len(x), 2, 3)  # grid_sample's x is frequency, its y is time
    theta[:, 0, 0] = 1
    theta[:, 0, 2] = torch.empty(len(x)).uniform_(-1, 1) * how.max_frequency_shift * 2 / bins
    theta[:, 1, 1] = 1 + torch.empty(len(x)).uniform_(-1, 1) * how.max_time_stretch
    grid = F.affine_grid(theta, [len(x), 1, *x.shape[1:]], align_corners=False)
    moved = F.grid_sample(
        (x - floor)[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return moved[:, 0] + floor


def _gain_and_tilt(batch: int, bins: int, how: Augmentation) -> Tensor:
    """Power factors [batch, 1, bins]: a gain and a smooth equaliser curve of four random points."""
    gain_db = torch.empty(batch, 1).uniform_(-how.max_gain_db, how.max_gain_db)
    points = torch.empty(batch, 1, 4).uniform_(-how.max_tilt_db, how.max_tilt_db)
    curve_db = F.interpolate(points, bins, mode="linear", align_corners=True)[:, 0]
    return (10 ** ((gain_db + curve_db) / 10))[:, None]


def hide_stripes(x: Tensor, how: Augmentation) -> Tensor:
    """Two stripes of time and two of frequency set to the spectrogram's mean (Park et al. 2019)."""
    B, T, bins = x.shape
    if not (how.time_mask_frames or how.frequency_mask_bins):
        return x
    hidden = torch.zeros(B, T, bins, dtype=torch.bool)
    for _ in range(2):
        hidden |= _stripe(B, T, how.time_mask_frames)[:, :, None]
        hidden |= _stripe(B, bins, how.frequency_mask_bins)[:, None, :]
    return torch.where(hidden, x.mean((1, 2), keepdim=True), x)


def _stripe(batch: int, size: int, max_width: int) -> Tensor:
    width = torch.rand(batch, 1) * max_width
    start = torch.rand(batch, 1) * (size - width)
    position = torch.arange(size)[None]
    return (position >= start) & (position < start + width)


def _random_frames(frames: Tensor, count: int) -> Tensor:
    """So many frames in order of time; a still gives its one frame again and again."""
    if len(frames) == 1:
        return frames.expand(count, -1, -1, -1)
    return frames[torch.randperm(len(frames))[:count].sort().values]


def _camera(aspect: Tensor, num_frames: int, how: Augmentation) -> Tensor:
    """Affine maps [batch, frames, 2, 3] of a random crop.

    For some items the crop pans and zooms over the frames.
    """
    B = len(aspect)
    area = torch.empty(B).uniform_(how.min_crop_area, 1.0)
    ratio = torch.empty(B).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    size = torch.stack([(area * ratio / aspect).sqrt(), (area / ratio * aspect).sqrt()], 1).clamp(max=1.0)
    centre = (torch.rand(B, 2) * 2 - 1) * (1 - size)
    moves = (torch.rand(B) < how.pan_zoom_probability).float()[:, None]
    drift, zoom = torch.randn(B, 2) * 0.12 * moves, 1 + torch.randn(B, 1) * 0.08 * moves
    time = torch.linspace(-0.5, 0.5, num_frames)[None, :, None] if num_frames > 1 else torch.zeros(1, 1, 1)
    size_t = size[:, None] * (1 + (zoom[:, None] - 1) * 2 * time)
    centre_t = centre[:, None] + drift[:, None] * 2 * time
    angle = torch.empty(B).uniform_(-1, 1) * math.radians(how.max_rotation_degrees)
    flip = torch.where(torch.rand(B) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    theta = torch.zeros(B, num_frames, 2, 3)
    theta[..., 0, 0], theta[..., 0, 1] = size_t[..., 0] * cos * flip[:, None], -size_t[..., 0] * sin
    theta[..., 1, 0], theta[..., 1, 1] = size_t[..., 1] * sin * flip[:, None], size_t[..., 1] * cos
    theta[..., 2] = centre_t
    return theta


def _jitter_colours(video: Tensor, how: Augmentation) -> Tensor:
    """Brightness, contrast, saturation, and grey for some of [batch, frames, 3, height, width].

    One draw per item.
    """
    B = len(video)

    def factor() -> Tensor:
        return torch.empty(B, 1, 1, 1, 1).uniform_(1 - how.colour_jitter, 1 + how.colour_jitter)

    grey = (video * torch.tensor([0.299, 0.587, 0.114]).view(1, 1, 3, 1, 1)).sum(2, keepdim=True)
    saturation = torch.where(torch.rand(B, 1, 1, 1, 1) < how.grey_probability, 0.0, factor())
    video = grey + (video - grey) * saturation
    mean = grey.mean((1, 2, 3, 4), keepdim=True)
    return (mean + (video - mean) * factor()) * factor()


def _erase(video: Tensor, how: Augmentation) -> Tensor:
    """A random rectangle of some items becomes one random colour, in all frames (Zhong et al. 2020)."""
    for item in (torch.rand(len(video)) < how.erase_probability).nonzero()[:, 0].tolist():
        side = float(torch.empty(()).uniform_(0.15, 0.5))
        rows, columns = _random_span(video.shape[3], side), _random_span(video.shape[4], side)
        video[item, :, :, rows, columns] = torch.rand(3, 1, 1) * 255
    return video


def _random_span(size: int, fraction: float) -> slice:
    length = max(1, round(size * fraction))
    start = int(torch.randint(size - length + 1, ()))
    return slice(start, start + length)
