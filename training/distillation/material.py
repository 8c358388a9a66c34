"""What a distillation learns from, on disk: arrays that are made once and mapped by the runs that need them.

A folder of the cache has one array per file, is named by all that its arrays are made of, and is whole or not
there.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.manifests import Item
from datasets.read_failure import ReadFailure, log_failures, read_failure
from media.progress import OnProgress
from media.spec import ClipSpec
from training.recipe import Distillation

Shapes = Mapping[str, tuple[tuple[int, ...], type]]
"""Shape and type of each array, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """What the material of a split is made of."""

    items: Sequence[Item]
    """Each a sound or a picture."""
    spec: ClipSpec
    how: Distillation
    seed: int
    augment: bool
    """Whether windows and crops are drawn at random and mixed; if not, there is one of each item."""
    cache_dir: Path
    on_progress: OnProgress

    def of(self, modality: str) -> list[int]:
        """Where the items of a modality stand."""
        return [i for i, item in enumerate(self.items) if item.modality == modality]

    def decoded(self, modality: str, decode: Callable[[Item], np.ndarray]) -> dict[int, np.ndarray]:
        """What each item of a modality decodes to, without those that do not.

        Raises:
            ValueError: none does.
        """
        chosen, found = self.of(modality), {}
        failures: dict[Path, ReadFailure] = {}

        def attempt(i: int) -> np.ndarray | ReadFailure:
            try:
                return decode(self.items[i])
            except Exception as error:  # whatever a decoder raises costs its file alone
                return read_failure(self.items[i].path, error)

        with ThreadPoolExecutor(2) as pool:
            for done, (i, array) in enumerate(zip(chosen, pool.map(attempt, chosen), strict=True), 1):
                if isinstance(array, ReadFailure):
                    failures[self.items[i].path] = array
                else:
                    found[i] = array
                self.on_progress("decode", done, len(chosen))
        log_failures(failures)
        if not found:
            raise ValueError(f"none of {len(chosen)} files of {modality} decodes; run zorro data check")
        return found

    def drawer(self, decoded: Iterable[int]) -> "ItemDrawer":
        """Draws from items that decode."""
        return ItemDrawer(self.items, decoded)

    def folder(self, modality: str, num: int) -> Path:
        """Where the material of a modality is kept."""
        made_of = {
            "modality": modality,
            "num": num,
            "spec": self.spec.hash,
            "how": asdict(self.how),
            "seed": self.seed,
            "augment": self.augment,
            "files": [(str(item.path), item.labels, item.path.stat().st_size) for item in self.items],
        }
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return self.cache_dir / f"taught-{modality}-{digest[:16]}"


class ItemDrawer:
    """Draws items so that each label of each collection comes as often."""

    def __init__(self, items: Sequence[Item], decoded: Iterable[int]) -> None:
        by_label: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for i in decoded:
            by_label.setdefault((items[i].collection, items[i].labels), []).append(i)
        self._groups = [by_label[name] for name in sorted(by_label)]

    def __call__(self, draw: np.random.Generator) -> int:
        """Where the drawn item stands."""
        group = self._groups[draw.integers(len(self._groups))]
        return group[draw.integers(len(group))]


def write_arrays(
    folder: Path, shapes: Shapes, rows: Iterable[Mapping[str, Any]], on_progress: OnProgress
) -> None:
    """Write each row's values at its place, and give the folder its name when all are there."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    files = {
        name: np.lib.format.open_memmap(part / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for name, (shape, dtype) in shapes.items()
    }
    num = len(next(iter(files.values())))
    for i, row in enumerate(rows):
        for name, file in files.items():
            file[i] = row[name]
        on_progress("teach", i + 1, num)
    for file in files.values():
        file.flush()
    part.rename(folder)


def mapped_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a folder by name, read as they are used."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
