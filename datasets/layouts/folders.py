"""Plain folders: `LABEL/...` or `{train,val,test}/LABEL/...`; files without any such folder have no label.

Without folders for splits the split is drawn from a hash of the path relative to the folder: 80 % train, 10 %
val, 10 % test, the same on every machine and however many files come later. Pieces of one recording may so
end up in several splits; where that matters, give folders for splits.
"""

import hashlib
from pathlib import Path, PurePath

from datasets.manifests import Item, Listing, ManifestError

from .files import FileIndex, modality_of

FOLDER_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SHARES = (("train", 0.8), ("val", 0.9), ("test", 1.0))  # cumulative


def recognises(folder: Path) -> bool:
    """Whether there is any media file under the folder."""
    return bool(FileIndex(folder).paths)


def read(folder: Path) -> Listing:
    """All media files under the folder; none can be missing.

    Raises:
        ManifestError: folders for splits stand beside others, or some files have a label folder and some
            none.
    """
    paths = [path.relative_to(folder) for path in FileIndex(folder).paths]
    has_splits = _has_splits(folder, paths)
    items = [_item(folder, path, has_splits=has_splits) for path in paths]
    unlabelled = [item.path for item in items if not item.labels]
    if unlabelled and len(unlabelled) < len(items):
        raise ManifestError(
            f"{folder}: {len(unlabelled)} of {len(items)} files have no label folder, the first is "
            f"{unlabelled[0]}; "
            "put them into one, or take all out"
        )
    return Listing(layout="folders", items=items, missing=[])


def split_of(path: PurePath) -> str:
    """The split drawn for a relative path."""
    drawn = int.from_bytes(hashlib.sha256(path.as_posix().encode()).digest()[:6], "big") / (1 << 48)
    return next(split for split, upto in SHARES if drawn < upto)


def _has_splits(folder: Path, paths: list[Path]) -> bool:
    tops = {path.parts[0] if len(path.parts) > 1 else "." for path in paths}
    splits = tops & FOLDER_SPLITS.keys()
    if splits and splits != tops:
        raise ManifestError(
            f"{folder} has folders for the splits {sorted(splits)} beside {sorted(tops - splits)[:5]}; "
            "put all files under splits or none"
        )
    return bool(splits)


def _item(folder: Path, path: Path, *, has_splits: bool) -> Item:
    label = path.parts[has_splits:-1][:1]
    split = FOLDER_SPLITS[path.parts[0]] if has_splits else split_of(path)
    return Item(folder / path, modality_of(path), label, split)
