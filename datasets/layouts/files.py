"""Media files of a folder by their names: each folder is walked once, however long the list of clips."""

import os
from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".m4v", ".flv", ".3gp")
AUDIO_SUFFIXES = (".wav", ".flac", ".m4a", ".ogg", ".opus", ".mp3", ".aac")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
RANK = {suffix: rank for rank, suffix in enumerate(VIDEO_SUFFIXES + AUDIO_SUFFIXES + IMAGE_SUFFIXES)}
"""Of files of one name the first in this order is taken: a film holds its sound as well."""


def modality_of(path: Path) -> str:
    """What there is to learn from a file of this ending; a film may turn out to lack one of "both"."""
    suffix = path.suffix.lower()
    return "audio" if suffix in AUDIO_SUFFIXES else "video" if suffix in IMAGE_SUFFIXES else "both"


class FileIndex:
    """The media files under a folder, in order of their paths; what starts with a dot is passed over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[Path] = []
        for parent, folders, names in os.walk(folder, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            self.paths += [
                Path(parent, name) for name in names if _suffix(name) in RANK and not name.startswith(".")
            ]
        self.paths.sort()
        self._by_stem: dict[str, Path] = {}
        for path in sorted(self.paths, key=lambda path: RANK[_suffix(path.name)]):
            self._by_stem.setdefault(path.stem, path)

    def find(self, *stems: str) -> Path:
        """The file with the first of these stems that exists.

        If there is none, it is the path where one would be: `FOLDER/STEM.mp4`.
        """
        found = (self._by_stem[stem] for stem in stems if stem in self._by_stem)
        return next(found, self.folder / f"{stems[0]}.mp4")

    def holds(self, path: Path) -> bool:
        """Whether `path` is what `find` has found."""
        return self._by_stem.get(path.stem) == path


def clip_stems(video_id: str, start_seconds: float) -> tuple[str, ...]:
    """Names that downloaders give to a clip cut from a longer film.

    They are made of the film's id and of where the clip starts.
    """
    start = round(start_seconds)
    return (f"{video_id}_{start:06d}", f"{video_id}_{start}", video_id, f"Y{video_id}")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
