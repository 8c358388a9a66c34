"""Whether the tables of a vocabulary fit together; each error names the file and the line."""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from .tables import LABELS_FILE, Bridge, FolderLabels, LabelGroup, VocabularyError, VocabularyLabel

NUM_AUDIOSET_LABELS, NUM_IMAGENET_LABELS = 527, 1000


def check_ids(labels: Sequence[VocabularyLabel], groups: Sequence[LabelGroup]) -> None:
    """Ids of labels and groups are unique, parents exist, and no entry is above itself.

    Raises:
        VocabularyError: names the first that is not so.
    """
    entries: dict[str, VocabularyLabel | LabelGroup] = {}
    both: list[VocabularyLabel | LabelGroup] = [*labels, *groups]
    for entry in both:
        if entry.id in entries:
            raise VocabularyError(f"{entry.where}: the id {entry.id!r} is also at {entries[entry.id].where}")
        entries[entry.id] = entry
    for entry in entries.values():
        require_known(entry.parents, entries, "parents", entry.where)
    _check_parent_streams(labels)
    try:
        TopologicalSorter({entry.id: entry.parents for entry in entries.values()}).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        raise VocabularyError(
            f"{entries[cycle[0]].where}: parents lead back to {' -> '.join(cycle)}"
        ) from None


def _check_parent_streams(labels: Sequence[VocabularyLabel]) -> None:
    streams = {label.id: label.streams for label in labels}
    for label in labels:
        for parent in label.parents:
            if parent in streams and not set(label.streams) <= set(streams[parent]):
                raise VocabularyError(
                    f"{label.where}: the parent {parent!r} is a label of other streams than {label.id!r}; "
                    "join them by a bridge instead"
                )


def check_order(labels: Sequence[VocabularyLabel]) -> None:
    """AudioSet's labels come first, then ImageNet's by their WordNet ids, then those of neither.

    Raises:
        VocabularyError: names the first that is not so.
    """
    num_known = NUM_AUDIOSET_LABELS + NUM_IMAGENET_LABELS
    if len(labels) < num_known:
        where = labels[-1].where if labels else LABELS_FILE
        raise VocabularyError(f"{where}: there are {len(labels)} labels, wanted at least {num_known}")
    for label in labels[:NUM_AUDIOSET_LABELS]:
        _require(bool(label.mid and label.name) and label.streams == ("audio",), label, "AudioSet")
    for label in labels[NUM_AUDIOSET_LABELS:num_known]:
        _require(bool(label.wnid and label.name) and label.streams == ("video",), label, "ImageNet")
    for before, label in pairwise(labels[NUM_AUDIOSET_LABELS:num_known]):
        if label.wnid <= before.wnid:
            raise VocabularyError(
                f"{label.where}: {label.wnid} comes after {before.wnid}; ImageNet's labels are sorted by wnid"
            )
    for label in labels[num_known:]:
        _require(not label.name and not label.mid, label, "neither AudioSet nor ImageNet")
    for label in labels[NUM_AUDIOSET_LABELS:]:
        if not label.parents:
            raise VocabularyError(f"{label.where}: {label.id!r} has no parent; give it a group")


def _require(is_so: bool, label: VocabularyLabel, origin: str) -> None:
    if not is_so:
        raise VocabularyError(
            f"{label.where}: {label.id!r} stands where a label of {origin} is wanted, "
            "by its streams, mid, wnid and name"
        )


def check_groups(groups: Iterable[LabelGroup], members: Mapping[str, Sequence[str]]) -> None:
    """Every group has labels.

    Raises:
        VocabularyError: names the first that has none.
    """
    for group in groups:
        if not members[group.id]:
            raise VocabularyError(f"{group.where}: no label belongs to the group {group.id!r}; remove it")


def check_bridges(
    bridges: Iterable[Bridge], labels: Mapping[str, VocabularyLabel], members: Mapping[str, Sequence[str]]
) -> None:
    """Bridges lead from a label of sounds to labels of pictures, one row for each sound.

    Raises:
        VocabularyError: names the first that does not.
    """
    rows: dict[str, str] = {}
    for bridge in bridges:
        if bridge.audio in rows:
            raise VocabularyError(f"{bridge.where}: {bridge.audio!r} is also at {rows[bridge.audio]}")
        rows[bridge.audio] = bridge.where
        require_known((bridge.audio,), labels, "audio", bridge.where)
        require_known(bridge.video, members, "video", bridge.where)
        _require_stream((bridge.audio,), "audio", labels, bridge.where)
        _require_stream((x for id_ in bridge.video for x in members[id_]), "video", labels, bridge.where)


def check_display_names(labels: Iterable[VocabularyLabel], bridged: Mapping[str, Sequence[str]]) -> None:
    """Labels of the same display name are one thing, so a bridge joins them.

    Raises:
        VocabularyError: names the first that none joins.
    """
    named: dict[str, VocabularyLabel] = {}
    for label in labels:
        other = named.setdefault(label.label.lower(), label)
        if other is not label and other.id not in bridged.get(label.id, ()):
            raise VocabularyError(
                f"{label.where}: {label.id!r} is called {label.label!r} like {other.id!r} at {other.where}; "
                "give it another name, or join the two by a bridge"
            )


def check_folders(
    folders: Sequence[FolderLabels],
    labels: Mapping[str, VocabularyLabel],
    members: Mapping[str, Sequence[str]],
) -> None:
    """Folders name labels of the right stream, each folder once, and some folder teaches each added label.

    Raises:
        VocabularyError: names the first that is not so.
    """
    rows: dict[tuple[str, str], str] = {}
    for folder in folders:
        key = folder.dataset, folder.folder
        if key in rows:
            raise VocabularyError(
                f"{folder.where}: {folder.dataset} {folder.folder!r} is also at {rows[key]}"
            )
        rows[key] = folder.where
        for stream, possible, certain in (
            ("audio", folder.audio, folder.audio_certain),
            ("video", folder.video, folder.video_certain),
        ):
            _check_folder(stream, possible, certain, folder.where, labels, members)
    taught = {id_ for x in folders for known in (x.audio, x.video) for name in known for id_ in members[name]}
    for label in labels.values():
        if not label.name and label.id not in taught:
            raise VocabularyError(f"{label.where}: no folder in sources.csv teaches {label.id!r}; remove it")


def _check_folder(
    stream: str,
    possible: Sequence[str],
    certain: Sequence[str],
    where: str,
    labels: Mapping[str, VocabularyLabel],
    members: Mapping[str, Sequence[str]],
) -> None:
    require_known(possible, members, stream, where)
    expanded = {x for id_ in possible for x in members[id_]}
    _require_stream(expanded, stream, labels, where)
    if other := [id_ for id_ in certain if id_ not in expanded]:
        raise VocabularyError(
            f"{where}: {stream}_certain has {other}, which {stream} does not have; add them"
        )


def require_known(ids: Iterable[str], known: Mapping[str, object], column: str, where: str) -> None:
    """Every id is known.

    Raises:
        VocabularyError: names those that are not.
    """
    if unknown := [id_ for id_ in ids if id_ not in known]:
        raise VocabularyError(f"{where}: {column} has {unknown}, which is in no table; correct the ids")


def _require_stream(
    ids: Iterable[str], stream: str, labels: Mapping[str, VocabularyLabel], where: str
) -> None:
    if other := [id_ for id_ in ids if stream not in labels[id_].streams]:
        raise VocabularyError(f"{where}: {other} cannot be answers of the {stream} stream")
