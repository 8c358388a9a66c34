"""Strange real files: what decodes is served, what does not fails with a code."""

import csv
from pathlib import Path

import pytest

from media import ClipSpec, probe, read_clips
from media.errors import CorruptMedia, EmptyMedia, MediaError, UnsupportedMedia

SERVED = ("decodes", "partly")


def test_every_file_gives_what_is_known_of_it(shared_dir: Path) -> None:
    folder = shared_dir / "media" / "awkward"
    with (folder / "FILES.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = {row["file"]: fault for row in rows if (fault := _fault(folder / row["file"], row))}
    assert len(rows) > 40
    assert not wrong


def _fault(path: Path, row: dict[str, str]) -> str | None:
    has_audio = row["audio"] in SERVED and float(row["audio_seconds"]) > 0
    has_video = row["video"] in SERVED
    try:
        info = probe(path)
        clips = list(read_clips(path, ClipSpec(), audio=info.has_audio, video=info.has_video))
    except (EmptyMedia, UnsupportedMedia, CorruptMedia) as error:
        return f"refused: {error}" if has_audio or has_video else None
    except MediaError as error:
        return f"unexpected {type(error).__name__}: {error}"
    got = (sum(c.audio_seconds for c in clips) > 0, sum(c.video_seconds for c in clips) > 0)
    return (
        None if got == (has_audio, has_video) else f"got sound, picture {got}, known {(has_audio, has_video)}"
    )


@pytest.mark.parametrize("name", ["flac_cover.flac", "mp3_bad_cover.mp3"])
def test_cover_art_is_no_video(name: str, shared_dir: Path) -> None:
    assert not probe(shared_dir / "media" / "awkward" / name).has_video


def test_pixels_that_are_not_square(shared_dir: Path) -> None:
    info = probe(shared_dir / "media" / "awkward" / "sar2x1.mp4")
    assert (info.width, info.height) == (1280, 360)
