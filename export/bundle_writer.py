"""Export makes a bundle of a checkpoint.

A bundle has checked graphs, golden clips, a model card, and a seal over all of it.

The bundle is made beside its final place and moved there whole, so there is never half a bundle.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from media import Clip, Modality
from media.progress import OnProgress, ignore_progress
from models.weights import Checkpoint, copy_checkpoint, halve_checkpoint, load_checkpoint
from runtime.bundle import (
    CARD_FILE,
    CHECKPOINT_FOLDER,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    SEAL_FILE,
    read_bundle,
    sha256_of,
)
from runtime.decision import parse_decision
from runtime.pipeline import Zorro

from .atomic_folder import replace_folder
from .bundle_graphs import write_bundle_graphs
from .checkpoint_scores import learned_scores
from .model_card import fill_card
from .variants import Calibration, check_variants


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What a bundle holds beside its name, and what its graphs are checked on."""

    variants: Sequence[str] = ("fp32",)
    """Which to write, of `variants.VARIANTS`; `fp32` among them."""
    may_lack: Collection[str] = ()
    """Variants that are left out, with the reason in the manifest, where they cannot be made within their
    tolerance."""
    clips: Mapping[Modality, Sequence[Clip]] | None = None
    """Real windows on which parity is checked beside the golden ones."""
    calibration: Calibration | None = None
    """Windows of the training split, which variants of int8 need."""
    model_card: str = ""
    """Markdown for people, with marks as in `model_card`."""
    metrics: Mapping[str, Any] | None = None
    """Scores, as `zorro evaluate` gives them."""
    about: Mapping[str, Any] | None = None
    """Licence and provenance of the training data."""
    decision: Mapping[str, Any] | None = None
    """Which labels a stream may answer with, and from where it is sure, as `runtime.decision` reads it; None
    for what the checkpoint says, an empty table for none."""
    with_checkpoint: bool = True
    """Put the checkpoint in too, so that whoever has the bundle can train on, export anew and compare."""
    half_checkpoint: bool = False
    """Round the weights to float16 first, so that the checkpoint has half the size. The graphs are made of
    the rounded weights, too."""


DEFAULT_OPTIONS = ExportOptions()


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    name: str,
    version: str,
    options: ExportOptions = DEFAULT_OPTIONS,
    force: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Write the bundle `out`; returns its path.

    Args:
        checkpoint: folder that training wrote.
        out: folder to be made.
        name: of the model.
        version: of the model.
        options: what is in the bundle, and what its graphs are checked on.
        force: replace a bundle that is there.
        on_progress: told of each stage: the graphs, each variant, the self-test.

    Raises:
        ValueError: an invalid name, version or variant, labels that are not those of the model's logits,
            a card whose marks cannot be filled, a variant that the model cannot be converted to, or a
            decision that is malformed or for labels that compete.
        FileExistsError: there is one already.
        CheckpointError, AuditError, ImpureGraphError, ParityError: it must not be exported.
    """
    out = Path(out)
    _check_names(name=name, version=version)
    check_variants(options.variants, options.calibration)
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists; choose another version, or force its replacement")
    loaded = _load_labelled(checkpoint)
    decision = _decision_table(loaded, options)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as part:
        if options.half_checkpoint:
            halve_checkpoint(checkpoint, Path(part) / "half")
            checkpoint, loaded = Path(part) / "half", load_checkpoint(Path(part) / "half")
        folder = Path(part) / "bundle"
        folder.mkdir()
        manifest = write_bundle_graphs(
            folder,
            loaded,
            variants=options.variants,
            may_lack=options.may_lack,
            clips=options.clips or {},
            calibration=options.calibration or Calibration(),
            on_progress=on_progress,
        )
        metrics, about = dict(options.metrics or {}), dict(options.about or {})
        card = options.model_card or f"# {name}\n\nNo card was given: <!-- training -->.\n"
        (folder / CARD_FILE).write_text(fill_card(card, metrics=metrics, manifest=manifest))
        if options.with_checkpoint:
            copy_checkpoint(checkpoint, folder / CHECKPOINT_FOLDER)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "version": version,
            **manifest,
            **decision,
        }
        seal_bundle(folder, manifest | {"metrics": metrics, "about": about})
        _self_test(folder, on_progress)
        replace_folder(folder, out, aside=Path(part) / "replaced")
    return out


def seal_bundle(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `bundle.json` with the sha256 of every file, and `bundle.sha256` over it."""
    files = {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST_FILE, SEAL_FILE)
    }
    content = json.dumps(manifest | {"files": files}, indent=1, sort_keys=True).encode()
    (folder / MANIFEST_FILE).write_bytes(content)
    (folder / SEAL_FILE).write_text(hashlib.sha256(content).hexdigest() + "\n")


def _check_names(**given: str) -> None:
    for what, value in given.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(
                f"{what}={value!r}; give letters, digits, '.', '_' or '-', beginning with a letter or digit"
            )


def _load_labelled(checkpoint: str | Path) -> Checkpoint:
    loaded = load_checkpoint(checkpoint)
    if len(loaded.labels) != loaded.config.num_classes:
        raise ValueError(
            f"got {len(loaded.labels)} labels for {loaded.config.num_classes} logits; save it again"
        )
    return loaded


def _decision_table(loaded: Checkpoint, options: ExportOptions) -> dict[str, Any]:
    """What the manifest says under `decision`; nothing where neither the options nor the checkpoint do.

    Raises:
        ValueError: it is malformed, or the labels compete.
    """
    stored = loaded.extra.get("decision") if options.decision is None else options.decision
    if stored is None or stored == {}:
        return {}
    return {"decision": parse_decision(stored, learned_scores(loaded)).to_dict()}


def _self_test(folder: Path, on_progress: OnProgress) -> None:
    """Open the written bundle as a server would, and compare every variant's golden answers."""
    written = read_bundle(folder)
    for done, variant in enumerate(written.variants):
        on_progress("self-test", done, len(written.variants))
        Zorro(written, variant=variant).self_test()
    on_progress("self-test", len(written.variants), len(written.variants))
