"""ESC-50: `meta/esc50.csv` with `filename,fold,target,category,esc10,src_file,take`, and sounds in `audio/`.

The protocol tests on each of the five official folds in turn and averages; clips of one recording share a
fold.
"""

from pathlib import Path

from datasets.manifests import Item, Listing, ManifestError, read_rows

ESC50_LIST = "meta/esc50.csv"
FOLDS = ("1", "2", "3", "4", "5")


def recognises(folder: Path) -> bool:
    """Whether the folder holds the list."""
    return (folder / ESC50_LIST).is_file()


def read(folder: Path, *, test_fold: int = 5, val_fold: int | None = None) -> Listing:
    """All sounds: one fold is split "test", one perhaps "val", the others "train".

    `Item.source` is the recording it was cut from, "ESC-10 ..." where it belongs to that subset.

    Raises:
        ManifestError: a fold is none of 1 to 5, or is to be both test and val.
    """
    wanted = {str(test_fold), str(val_fold)} - {"None"}
    if not wanted <= set(FOLDS) or test_fold == val_fold:
        raise ManifestError(f"{test_fold=} and {val_fold=} must be two of the folds 1 to 5")
    splits = dict.fromkeys(FOLDS, "train") | {str(val_fold): "val"} | {str(test_fold): "test"}
    items = []
    for row in read_rows(folder / ESC50_LIST, ("filename", "fold", "category", "esc10", "src_file")):
        if row["fold"] not in FOLDS:
            raise ManifestError(
                f"{folder / ESC50_LIST}: {row['filename']} is of fold {row['fold']!r}; there are 1 to 5"
            )
        source = f"{'ESC-10' if row['esc10'] == 'True' else 'ESC-50'} {row['src_file']}"
        path = folder / "audio" / row["filename"]
        items.append(Item(path, "audio", (row["category"],), splits[row["fold"]], source))
    return Listing.of("esc50", items)
