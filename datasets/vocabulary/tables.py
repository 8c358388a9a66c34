"""Rows of the four tables as dataclasses; each remembers its file and line, for errors.

What can be said of one row alone is checked here: its columns, the form of its ids and codes. Whether rows
fit each other is checked by `datasets.vocabulary.consistency`.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LABELS_FILE, GROUPS_FILE, BRIDGES_FILE, SOURCES_FILE = (
    "labels.csv",
    "groups.csv",
    "bridges.csv",
    "sources.csv",
)
_COLUMNS = {
    LABELS_FILE: ("id", "label", "streams", "parents", "mid", "wnid", "name"),
    GROUPS_FILE: ("id", "label", "parents", "mid"),
    BRIDGES_FILE: ("audio", "video"),
    SOURCES_FILE: ("dataset", "folder", "audio", "audio_certain", "video", "video_certain"),
}
_STREAMS = ("audio", "video")
_KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MID = re.compile(r"/[mgt]/\w+")
_WNID = re.compile(r"n\d{8}")


class VocabularyError(ValueError):
    """A table of the vocabulary cannot be read, its rows contradict each other, or a name is in none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyLabel:
    """One label, in the order of the logits."""

    id: str
    label: str
    """What to call it."""
    streams: tuple[str, ...]
    """Which of the audio and the video stream can give it; the fusion stream can give all labels."""
    parents: tuple[str, ...]
    """Ids of groups and labels that it belongs to."""
    mid: str
    """Its id in AudioSet; empty where it has none."""
    wnid: str
    """Its id in WordNet; empty where it has none."""
    name: str
    """Its name as AudioSet or ImageNet publishes it; empty where neither knows it."""
    where: str = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelGroup:
    """What labels belong to, without being a label itself."""

    id: str
    label: str
    parents: tuple[str, ...]
    mid: str
    """Its id in AudioSet's ontology; empty for groups of pictures."""
    where: str = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A label of sounds, and the labels of pictures that show what makes the sound."""

    audio: str
    video: tuple[str, ...]
    """As written in the table: ids of labels and of groups."""
    where: str = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderLabels:
    """Which labels one folder of a dataset, or one label of its manifest, means."""

    dataset: str
    folder: str
    """In lower case."""
    audio: tuple[str, ...]
    """Of its sounds: each of these labels is a right answer. None: nothing is known."""
    audio_certain: tuple[str, ...]
    """Those of them that hold for every one of its sounds."""
    video: tuple[str, ...]
    """Of its pictures: each of these labels is a right answer. None: nothing is known."""
    video_certain: tuple[str, ...]
    """Those of them that hold for every one of its pictures."""
    where: str = field(repr=False, compare=False)


def read_labels(folder: Path) -> list[VocabularyLabel]:
    """Rows of `labels.csv`.

    Raises:
        VocabularyError: the file is missing, or a row is malformed.
    """
    return [
        VocabularyLabel(
            id=_id(row, where),
            label=_filled(row, "label", where),
            streams=_streams(row, where),
            parents=_words(row["parents"]),
            mid=_code(row, "mid", _MID, where),
            wnid=_code(row, "wnid", _WNID, where),
            name=row["name"],
            where=where,
        )
        for where, row in _rows(folder / LABELS_FILE)
    ]


def read_groups(folder: Path) -> list[LabelGroup]:
    """Rows of `groups.csv`.

    Raises:
        VocabularyError: the file is missing, or a row is malformed.
    """
    return [
        LabelGroup(
            id=_id(row, where),
            label=_filled(row, "label", where),
            parents=_words(row["parents"]),
            mid=_code(row, "mid", _MID, where),
            where=where,
        )
        for where, row in _rows(folder / GROUPS_FILE)
    ]


def read_bridges(folder: Path) -> list[Bridge]:
    """Rows of `bridges.csv`.

    Raises:
        VocabularyError: the file is missing, or a row is malformed.
    """
    return [
        Bridge(audio=_filled(row, "audio", where), video=_words(_filled(row, "video", where)), where=where)
        for where, row in _rows(folder / BRIDGES_FILE)
    ]


def read_sources(folder: Path) -> list[FolderLabels]:
    """Rows of `sources.csv`.

    Raises:
        VocabularyError: the file is missing, or a row is malformed.
    """
    return [
        FolderLabels(
            dataset=_filled(row, "dataset", where),
            folder=_lower_case(row, "folder", where),
            audio=_words(row["audio"]),
            audio_certain=_words(row["audio_certain"]),
            video=_words(row["video"]),
            video_certain=_words(row["video_certain"]),
            where=where,
        )
        for where, row in _rows(folder / SOURCES_FILE)
    ]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row of a table by its columns' names, with its file and line."""
    columns = _COLUMNS[path.name]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if (header := next(reader, [])) != list(columns):
                raise VocabularyError(f"{path}, line 1: the columns are {header}, wanted {list(columns)}")
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if len(cells) != len(columns):
                    raise VocabularyError(f"{where}: {len(cells)} cells, wanted {len(columns)}")
                yield where, dict(zip(columns, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VocabularyError(f"{path} cannot be read as a CSV: {error}") from error


def _words(cell: str) -> tuple[str, ...]:
    return tuple(cell.split())


def _filled(row: Mapping[str, str], column: str, where: str) -> str:
    if not row[column].strip():
        raise VocabularyError(f"{where}: {column!r} is empty; fill it")
    return row[column]


def _id(row: Mapping[str, str], where: str) -> str:
    if not _KEBAB_CASE.fullmatch(row["id"]):
        raise VocabularyError(
            f"{where}: the id {row['id']!r} is not in kebab-case; write it as 'dog-whimper'"
        )
    return row["id"]


def _lower_case(row: Mapping[str, str], column: str, where: str) -> str:
    if (text := _filled(row, column, where)) != text.lower():
        raise VocabularyError(f"{where}: {column} {text!r} has capitals; write {text.lower()!r}")
    return text


def _streams(row: Mapping[str, str], where: str) -> tuple[str, ...]:
    streams = _words(row["streams"])
    if not streams or list(streams) != [x for x in _STREAMS if x in streams]:
        raise VocabularyError(
            f"{where}: streams are {row['streams']!r}, wanted 'audio', 'video' or 'audio video'"
        )
    return streams


def _code(row: Mapping[str, str], column: str, form: re.Pattern[str], where: str) -> str:
    if row[column] and not form.fullmatch(row[column]):
        raise VocabularyError(f"{where}: the {column} {row[column]!r} is not of the form {form.pattern}")
    return row[column]
