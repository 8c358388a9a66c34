"""Small collections made in code, laid out as users have them: label folders of sounds, pictures or films."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tests.made_media import jpeg_bytes, moving_frames, tone, write_clip

LABELS = {"low": (200.0, (220, 30, 30)), "high": (3_000.0, (30, 30, 220))}
"""Frequency in Hz and colour by which each label is told apart."""
COUNTS = {"train": 3, "val": 2, "test": 2}
"""Files of each label by split."""


def label_folders(
    folder: Path,
    *,
    audio: bool = False,
    video: bool = False,
    films: bool = False,
    names: Sequence[str] = tuple(LABELS),
) -> Path:
    """`SPLIT/LABEL/N.wav` if `audio`, `.jpg` if `video`, and `.mp4` with sound and moving picture if
    `films`."""
    for split, count in COUNTS.items():
        for (label, (hz, colour)), name in zip(LABELS.items(), names, strict=True):
            target = folder / split / name
            target.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                if audio:
                    write_clip(target / f"{i}.wav", waveform=tone(0.8, hz=hz + 20 * i))
                if video:
                    picture = np.full((48, 64 + 8 * i, 3), colour, np.uint8)
                    (target / f"{i}.jpg").write_bytes(jpeg_bytes(picture))
                if films:
                    write_film(target / f"{i}.mp4", hz=hz + 20 * i, dark=label == "high")
    return folder


def write_film(path: Path, *, hz: float, dark: bool = False) -> Path:
    """0.8 s of a tone and a moving picture."""
    frames = [255 - frame if dark else frame for frame in moving_frames(0.8, size=(32, 32))]
    return write_clip(path, waveform=tone(0.8, hz=hz), frames=frames)


def write_manifest(folder: Path, rows: Iterable[Sequence[object]]) -> Path:
    """`manifest.csv` of rows (path, modality, label, split); returns the folder."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "modality", "label", "split"), *rows])
    return folder


def several_labels(
    folder: Path, *, audio_only: bool = False, names: Sequence[str] = ("low", "high", "first")
) -> Path:
    """Clips of one or two labels each, in a manifest: films, or sounds alone."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, count in COUNTS.items():
        for i in range(2 * count):
            name = f"{split}-{i}.{'wav' if audio_only else 'mp4'}"
            hz = 3_000.0 if i % 2 else 200.0
            if audio_only:
                write_clip(folder / name, waveform=tone(0.8, hz=hz + 20 * i))
            else:
                write_film(folder / name, hz=hz + 20 * i, dark=bool(i % 2))
            label = names[i % 2] + (f"|{names[2]}" if i < 2 else "")
            rows.append((name, "audio" if audio_only else "both", label, split))
    return write_manifest(folder, rows)
