"""GRID: sentences of six words.

It has `sentences.csv` (path, split and the six words) and `words.csv` (path, span, word).

Each word fills one of six slots, so the 51 words are six closed choices; no word belongs to two slots ("a" is
a letter, "at" a preposition, digits are spelt out). A path's rows of `words.csv` come in order of time.
"""

from itertools import groupby
from pathlib import Path

from datasets.manifests import Item, Listing, ManifestError, read_rows, seconds, spanned

SLOTS: dict[str, tuple[str, ...]] = {
    "command": ("bin", "lay", "place", "set"),
    "colour": ("blue", "green", "red", "white"),
    "preposition": ("at", "by", "in", "with"),
    "letter": tuple(
        "abcdefghijklmnopqrstuvxyz"
    ),  # w is the only one of two syllables or more, so it is left out
    "digit": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "adverb": ("again", "now", "please", "soon"),
}
"""The words of each slot, in the order in which slots are spoken."""
SLOT_OF = {word: slot for slot, words in SLOTS.items() for word in words}


def recognises(folder: Path) -> bool:
    """Whether the folder holds both lists."""
    return (folder / "sentences.csv").is_file() and (folder / "words.csv").is_file()


def read(folder: Path) -> Listing:
    """Spoken words, each a span whose `source` names its slot.

    `manifests.whole_files` makes sentences of them.

    Raises:
        ManifestError: a word is none of its slot, or the lists contradict each other.
    """
    sentences = {row["path"]: row for row in read_rows(folder / "sentences.csv", ("path", "split", *SLOTS))}
    for path, row in sentences.items():
        for slot, words in SLOTS.items():
            if row[slot] not in words:
                raise ManifestError(
                    f"{folder / 'sentences.csv'}: {path} has the {slot} {row[slot]!r}; there are {words}"
                )
    present = {folder / path for path in sentences if (folder / path).is_file()}
    return Listing.of("grid", _words(folder, sentences), is_there=present.__contains__)


def _words(folder: Path, sentences: dict[str, dict[str, str]]) -> list[Item]:
    list_path = folder / "words.csv"
    rows = read_rows(list_path, ("path", "start_seconds", "end_seconds", "word"))
    items, seen = [], set()
    for path, spoken in groupby(rows, key=lambda row: row["path"]):
        words = list(spoken)
        expected = [sentences[path][slot] for slot in SLOTS] if path in sentences else []
        if [row["word"] for row in words] != expected:
            raise ManifestError(
                f"{list_path}: {path} has {[row['word'] for row in words]}, but its sentence is {expected}"
            )
        seen.add(path)
        for slot, row in zip(SLOTS, words, strict=True):
            start, end = (
                seconds(row[column], f"{list_path}, {path}") for column in ("start_seconds", "end_seconds")
            )
            item = Item(folder / path, "both", (row["word"],), sentences[path]["split"], slot, start, end)
            items.append(spanned(item, f"{list_path}, {path}"))
    if seen != sentences.keys():
        raise ManifestError(f"{list_path} has no words of {len(sentences.keys() - seen)} sentences")
    return items
