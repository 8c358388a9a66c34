"""The vocabulary read and checked, and what can be looked up in it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .consistency import (
    check_bridges,
    check_display_names,
    check_folders,
    check_groups,
    check_ids,
    check_order,
)
from .tables import (
    Bridge,
    FolderLabels,
    LabelGroup,
    VocabularyError,
    VocabularyLabel,
    read_bridges,
    read_groups,
    read_labels,
    read_sources,
)

_FOLDER_IN_SOURCE = re.compile(r"(\S+) ([^/]+)/")


@dataclass(frozen=True)
class Vocabulary:
    """Labels in the order of the logits, and how they belong together. Make it with `read_vocabulary`."""

    labels: tuple[VocabularyLabel, ...]
    groups: tuple[LabelGroup, ...]
    bridges: tuple[Bridge, ...]
    folders: tuple[FolderLabels, ...]
    """As written in the table, groups not replaced by their labels; see `dataset_labels`."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Where each label stands, by its id."""
        return {label.id: number for number, label in enumerate(self.labels)}

    @cached_property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """Ids of the labels that a name in a table stands for: a group's labels, a label's own id."""
        found: dict[str, list[str]] = {group.id: [] for group in self.groups}
        for label in self.labels:
            for id_ in self.ancestors(label.id):
                if id_ in found:
                    found[id_].append(label.id)
        return {label.id: (label.id,) for label in self.labels} | {x: tuple(ids) for x, ids in found.items()}

    @cached_property
    def bridged(self) -> Mapping[str, tuple[str, ...]]:
        """Ids of the labels of the other modality that bridges join with a label, by its id."""
        found: dict[str, list[str]] = {}
        for audio, video in self.bridge_pairs.tolist():
            found.setdefault(self.labels[audio].id, []).append(self.labels[video].id)
            found.setdefault(self.labels[video].id, []).append(self.labels[audio].id)
        return {id_: tuple(ids) for id_, ids in found.items()}

    @cached_property
    def bridge_pairs(self) -> np.ndarray:
        """Each bridged pair once, as indices of labels: int64 [num_pairs, 2], audio first, sorted."""
        pairs = {
            (self.index[bridge.audio], self.index[label])
            for bridge in self.bridges
            for id_ in bridge.video
            for label in self.members[id_]
        }
        return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)

    def indices(self, ids: Iterable[str]) -> np.ndarray:
        """Where labels, and the labels of groups, stand: int64 [num_labels], sorted, each once.

        Raises:
            VocabularyError: an id is in no table.
        """
        labels = {label for id_ in ids for label in self._members_of(id_)}
        return np.array(sorted(self.index[label] for label in labels), dtype=np.int64)

    def stream_mask(self, stream: str) -> np.ndarray:
        """Which labels a stream can give: bool [num_labels]; all for `fused`.

        Raises:
            VocabularyError: there is no such stream.
        """
        if stream not in ("audio", "video", "fused"):
            raise VocabularyError(f"stream={stream!r}; there are audio, video and fused")
        return np.array([stream == "fused" or stream in label.streams for label in self.labels])

    def ancestors(self, id_: str) -> tuple[str, ...]:
        """Ids of all groups and labels above a label or a group, the nearest first.

        A picture's are true of every such picture. A sound that AudioSet puts below several labels need
        not be all of them: `growling` is below `dog` and below `cat`.

        Raises:
            VocabularyError: the id is in no table.
        """
        if id_ not in self._parents:
            raise VocabularyError(f"{id_!r} is no label and no group of the vocabulary")
        found: dict[str, None] = {}
        next_up = list(self._parents[id_])
        while next_up:
            found |= dict.fromkeys(next_up)
            next_up = [x for parent in next_up for x in self._parents[parent] if x not in found]
        return tuple(found)

    def dataset_labels(self, dataset: str, folder: str) -> FolderLabels:
        """Which labels a folder of a dataset means, groups replaced by their labels.

        Args:
            dataset: `sights_sounds` or `caltech101`.
            folder: its name, or the label in the dataset's manifest; capitals do not matter.

        Raises:
            VocabularyError: it is not in the table.
        """
        row = self._folders.get((dataset, folder.lower()))
        if row is None:
            raise VocabularyError(f"sources.csv has no row for {dataset} {folder!r}; add it")
        return replace(row, audio=self._expanded(row.audio), video=self._expanded(row.video))

    def source_labels(self, source: str) -> FolderLabels | None:
        """What the `source` of a manifest's row says, where it names a folder of a known dataset.

        It is often finer than the label: pictures of `sea` come from `Caltech-101 ketch/image_0001.jpg`
        and others.
        """
        if (found := _FOLDER_IN_SOURCE.match(source)) is None:
            return None
        dataset = re.sub(r"[^a-z0-9]", "", found[1].lower())
        key = (dataset, found[2].lower())
        return self.dataset_labels(*key) if key in self._folders else None

    def bundle_labels(self) -> list[dict[str, Any]]:
        """Labels as checkpoints and bundles hold them: `id`, `label`, `modalities` and `parents`.

        `mid`, `wnid` and `bridges`, the ids of labels of the other modality, are there where there are any.
        """
        return [self._bundle_label(label) for label in self.labels]

    def bundle_groups(self) -> list[dict[str, Any]]:
        """Groups, to which the parents of `bundle_labels` refer: `id`, `label`, `parents`, perhaps `mid`."""
        return [
            {"id": group.id, "label": group.label, "parents": list(group.parents)}
            | ({"mid": group.mid} if group.mid else {})
            for group in self.groups
        ]

    def _bundle_label(self, label: VocabularyLabel) -> dict[str, Any]:
        optional = {"mid": label.mid, "wnid": label.wnid, "bridges": list(self.bridged.get(label.id, ()))}
        return {
            "id": label.id,
            "label": label.label,
            "modalities": list(label.streams),
            "parents": list(label.parents),
            **{key: value for key, value in optional.items() if value},
        }

    @cached_property
    def _parents(self) -> Mapping[str, tuple[str, ...]]:
        return {x.id: x.parents for x in self.labels} | {x.id: x.parents for x in self.groups}

    @cached_property
    def _folders(self) -> Mapping[tuple[str, str], FolderLabels]:
        return {(row.dataset, row.folder): row for row in self.folders}

    def _members_of(self, id_: str) -> tuple[str, ...]:
        if id_ not in self.members:
            raise VocabularyError(f"{id_!r} is no label and no group of the vocabulary")
        return self.members[id_]

    def _expanded(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(label for id_ in ids for label in self._members_of(id_)))


def read_vocabulary(folder: str | Path) -> Vocabulary:
    """Read and check the four tables in a folder.

    Raises:
        VocabularyError: a table is missing, malformed, or does not fit the others; it names file and line.
    """
    folder = Path(folder)
    vocabulary = Vocabulary(
        labels=tuple(read_labels(folder)),
        groups=tuple(read_groups(folder)),
        bridges=tuple(read_bridges(folder)),
        folders=tuple(read_sources(folder)),
    )
    check_ids(vocabulary.labels, vocabulary.groups)
    check_order(vocabulary.labels)
    members, labels = vocabulary.members, {label.id: label for label in vocabulary.labels}
    check_groups(vocabulary.groups, members)
    check_bridges(vocabulary.bridges, labels, members)
    check_display_names(vocabulary.labels, vocabulary.bridged)
    check_folders(vocabulary.folders, labels, members)
    return vocabulary


@cache
def everyday_vocabulary() -> Vocabulary:
    """The vocabulary that comes with the project, read once.

    Raises:
        VocabularyError: see `read_vocabulary`; the tables of the project are tested not to.
    """
    return read_vocabulary(Path(__file__).parent)
