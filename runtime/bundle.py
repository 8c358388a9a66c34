"""Bundles, read and verified to the last byte.

A bundle holds what serving needs, and perhaps the checkpoint it was made from.

A folder NAME/VERSION/ with `bundle.json`, the graphs, their weights, golden clips, a model card and
`checkpoint/`, which serving never opens. `bundle.json` holds the sha256 of every other file, and
`bundle.sha256` the sha256 of `bundle.json`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from media import ClipSpec, Modality

from .decision import Decision, parse_decision
from .errors import BundleCorrupt, BundleIncompatible, BundleNotFound, InvalidOption
from .scores import Scores

SCHEMA_VERSION = 2
MANIFEST_FILE, SEAL_FILE, CARD_FILE = "bundle.json", "bundle.sha256", "MODEL_CARD.md"
CHECKPOINT_FOLDER = "checkpoint"
ANY_PROVIDER = "*"
"""Stands in the table of providers for those it does not name."""


@dataclass(frozen=True, slots=True)
class Label:
    """One class."""

    id: str
    label: str
    modalities: tuple[str, ...]
    """What it was learned from, and so which of the audio and video streams can know it."""
    parents: tuple[str, ...] = ()
    """Ids of the labels and groups that it belongs to."""
    mid: str | None = None
    """Its id in AudioSet's ontology."""
    wnid: str | None = None
    """Its id in WordNet."""
    bridges: tuple[str, ...] = ()
    """Ids of labels of the other modality that mean the same thing: a piano heard, and a piano seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far answers may be from the model's."""

    max_abs_error: float
    """Of features, embeddings and logits."""
    min_cosine: float
    """Of embeddings."""
    min_top1_agreement: float
    """Share of clips with the same best label; held to at export, where there are many clips."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The model in certain numbers: `fp32`, `fp16`, `int8-cpu`, `int8-qdq`."""

    name: str
    graphs: dict[Modality, Path]
    tolerance: Tolerance
    """On the golden clips."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle."""

    path: Path
    name: str
    version: str
    clip_spec: ClipSpec
    labels: tuple[Label, ...]
    scores: Scores
    """How they come from logits."""
    decision: Decision | None
    """Which labels a stream may answer with, and from where it is sure; None for all, sure or not."""
    variants: dict[str, Variant]
    variant_of: dict[str, str]
    """Which variant a provider takes."""
    manifest: dict[str, Any]
    """All of `bundle.json`: metrics, parity, licence, provenance."""
    sha256: str
    """Of `bundle.json`, and so of everything."""

    def variant(self, name: str | None, *, provider: str) -> Variant:
        """The variant called `name`; None: that which the bundle's table gives to `provider`.

        Raises:
            InvalidOption: there is none of this name.
        """
        if name is None:
            name = self.variant_of.get(provider, self.variant_of[ANY_PROVIDER])
        if name not in self.variants:
            raise InvalidOption(
                f"variant={name!r}; {self.name}/{self.version} has {', '.join(self.variants)}"
            )
        return self.variants[name]

    def known_labels(self, modality: Modality) -> list[int]:
        """Which labels a stream may answer with, as indices of `labels`."""
        every = range(len(self.labels))
        if self.decision is None or not self.decision.known_labels_only or modality == Modality.FUSED:
            return list(every)
        return [i for i in every if modality in self.labels[i].modalities]


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bundle(path: str | Path) -> Bundle:
    """Read and verify the bundle at `path`.

    Raises:
        BundleNotFound, BundleCorrupt, BundleIncompatible: see `errors`.
    """
    path = Path(path)
    content, seal = _read_manifest(path)
    try:
        manifest = json.loads(content)
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise BundleIncompatible(
                f"{path} has schema {manifest['schema_version']}, this version reads {SCHEMA_VERSION}; "
                "export it again"
            )
        _verify_files(path, manifest["files"])
        return _parse(path, manifest, seal)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleIncompatible(
            f"{path}: {MANIFEST_FILE} lacks or garbles {error}; export it again"
        ) from error


def read_sealed(path: str | Path, *parts: str) -> dict[str, Any]:
    """`bundle.json` of a bundle of any schema, once it is verified.

    The named files and folders of the bundle are verified too.

    Raises:
        BundleNotFound, BundleCorrupt, BundleIncompatible: see `errors`.
    """
    path = Path(path)
    content, _ = _read_manifest(path)
    try:
        manifest: dict[str, Any] = json.loads(content)
        files = dict(manifest["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleIncompatible(
            f"{path}: {MANIFEST_FILE} lacks or garbles {error}; copy the bundle again"
        ) from error
    _verify_files(path, {name: sha256 for name, sha256 in files.items() if name.partition("/")[0] in parts})
    return manifest


def _parse(path: Path, manifest: dict[str, Any], seal: str) -> Bundle:
    spec = ClipSpec.from_dict(manifest["clip_spec"])
    if spec.hash != manifest["clip_spec_hash"]:
        raise BundleIncompatible(
            f"{path}: the ClipSpec's hash is not the one it was trained with; export it again"
        )
    variants = {name: _parse_variant(path, name, stored) for name, stored in manifest["variants"].items()}
    files = {x.relative_to(path).as_posix() for variant in variants.values() for x in variant.graphs.values()}
    if unverified := sorted(files - manifest["files"].keys()):
        raise BundleIncompatible(f"{path}: {MANIFEST_FILE} has no sha256 of {unverified}; export it again")
    variant_of = dict(manifest["variant_of"])
    lost = sorted({*variant_of.values()} - variants.keys())
    if lost or ANY_PROVIDER not in variant_of:
        raise BundleIncompatible(
            f"{path}: {MANIFEST_FILE} gives providers {lost or 'nothing by default'}, it holds "
            f"{sorted(variants)}; "
            "export it again"
        )
    scores = _parse_scores(path, manifest.get("scores", Scores.SOFTMAX))
    return Bundle(
        path=path,
        name=manifest["name"],
        version=manifest["version"],
        clip_spec=spec,
        labels=_parse_labels(manifest["labels"]),
        scores=scores,
        decision=_parse_decision(path, manifest, scores),
        variants=variants,
        variant_of=variant_of,
        manifest=manifest,
        sha256=seal,
    )


def _parse_labels(stored: Sequence[dict[str, Any]]) -> tuple[Label, ...]:
    labels = tuple(
        Label(
            x["id"],
            x["label"],
            tuple(x["modalities"]),
            parents=_parse_ids(x, "parents"),
            mid=x.get("mid"),
            wnid=x.get("wnid"),
            bridges=_parse_ids(x, "bridges"),
        )
        for x in stored
    )
    if unknown := sorted({id_ for x in labels for id_ in x.bridges} - {x.id for x in labels}):
        raise ValueError(f"bridges to {', '.join(unknown[:5])}, which are no labels of it")
    return labels


def _parse_ids(label: dict[str, Any], key: str) -> tuple[str, ...]:
    ids = label.get(key, [])
    if not isinstance(ids, list) or not all(isinstance(x, str) for x in ids):
        raise ValueError(f"{key} of the label {label['id']}")
    return tuple(ids)


def _parse_decision(path: Path, manifest: dict[str, Any], scores: Scores) -> Decision | None:
    if "decision" not in manifest:
        return None
    try:
        return parse_decision(manifest["decision"], scores)
    except ValueError as error:
        raise BundleIncompatible(f"{path}: {MANIFEST_FILE}: {error}, and export it again") from error


def _parse_scores(path: Path, stored: object) -> Scores:
    """How scores come from logits; bundles of before there was a choice do not say, and mean softmax."""
    if stored not in list(Scores):
        raise BundleIncompatible(
            f"{path}: {MANIFEST_FILE} has scores={stored!r}, this version knows {', '.join(Scores)}; update "
            "it, or export "
            "the bundle again"
        )
    return Scores(str(stored))


def _parse_variant(path: Path, name: str, stored: dict[str, Any]) -> Variant:
    graphs = {modality: path / stored["graphs"][modality]["file"] for modality in Modality}
    return Variant(name, graphs, Tolerance(**stored["tolerance"]))


def find_bundles(folder: str | Path) -> list[Path]:
    """Bundles in a model repository, a folder of NAME/VERSION/, by name and then by number of version.

    Raises:
        BundleNotFound: there is no such folder, or no bundle in it.
    """
    found = [manifest.parent for manifest in Path(folder).glob(f"*/*/{MANIFEST_FILE}")]
    if not found:
        raise BundleNotFound(
            f"no NAME/VERSION/{MANIFEST_FILE} below {folder}; point --bundles or ZORRO_BUNDLES at a model "
            "repository"
        )
    return sorted(found, key=lambda p: (p.parent.name, _version_key(p.name)))


def _version_key(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (-1, version)


def _read_manifest(path: Path) -> tuple[bytes, str]:
    """Bytes of `bundle.json`, and their sha256, which is that of the seal."""
    if not (path / MANIFEST_FILE).is_file():
        raise BundleNotFound(f"no {MANIFEST_FILE} in {path}; give the folder NAME/VERSION of a bundle")
    content = (path / MANIFEST_FILE).read_bytes()
    seal = hashlib.sha256(content).hexdigest()
    try:
        wanted = (path / SEAL_FILE).read_bytes()
    except OSError as error:
        raise BundleCorrupt(f"{path}: {SEAL_FILE} cannot be read; copy the bundle again") from error
    if wanted != seal.encode() + b"\n":
        raise BundleCorrupt(f"{path}: {MANIFEST_FILE} is not what {SEAL_FILE} says; copy the bundle again")
    return content, seal


def _verify_files(path: Path, files: dict[str, str]) -> None:
    for name, wanted in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleIncompatible(
                f"{path}: {MANIFEST_FILE} names {name!r}, which is outside the bundle; export it again"
            )
        if not (path / name).is_file():
            raise BundleCorrupt(f"{path}: {name} is missing; copy the bundle again")
        if sha256_of(path / name) != wanted:
            raise BundleCorrupt(
                f"{path}: {name} has other bytes than when the bundle was made; copy it again"
            )
