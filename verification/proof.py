"""Prove a bundle end to end on a collection.

Its graphs, and a real server on them, must answer as the checkpoint's model does.

From the same bytes three paths lead to scores and embeddings: `media` and the torch model; `runtime.Zorro`;
and `zorro serve` in a process of its own, asked over HTTP. Export compares graphs with the model window by
window; the proof compares all that users get: reading, the choice of a graph, pooling, softmax or sigmoid,
the order of labels, encoding.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.layouts import read_items
from datasets.manifests import Item
from evaluation.predictors import ModelPredictor
from export.atomic_folder import replace_folder
from export.bundle_writer import seal_bundle
from export.checkpoint_scores import learned_scores
from export.variants import TOLERANCES
from media import ClipSpec
from media.progress import OnProgress, ignore_progress
from models.weights import Checkpoint, load_checkpoint
from runtime import Bundle, read_bundle
from training.recipe import trained_spans

from .checkpoint_source import open_checkpoint_source
from .model_outputs import run_model
from .proof_requests import ComparedLabels
from .server_process import serve_bundle
from .variant_proof import ProofError, Serve, VariantProof


def prove_bundle(
    path: Path,
    checkpoint: Path | None,
    data: Path,
    *,
    split: str = "test",
    serve: Serve = serve_bundle,
    only_graphs: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, Any]:
    """Prove every variant of the bundle at `path` on a split of a collection.

    Write what was found into the bundle.

    Args:
        path: folder of the bundle.
        checkpoint: folder of the checkpoint that it was exported from; None for the one in the bundle.
        data: folder of a collection, in any layout of `datasets.layouts`.
        split: of the collection.
        serve: starts the server.
        only_graphs: leave HTTP out. Nothing is written then, since half a proof is none.
        on_progress: told of each stage.

    Returns:
        What the manifest says under `end_to_end`, by variant.

    Raises:
        ProofError: a variant differs from the model, or the server from the graph, by more than it may;
            nothing is written.
        ValueError: nothing of the split can be read, bundle or split have other labels than the checkpoint,
            or a variant is unknown.
        BundleError, CheckpointError: see there.
    """
    source = open_checkpoint_source(checkpoint or path).checkpoint
    bundle, loaded = read_bundle(path.resolve()), load_checkpoint(source)
    _check_bundle(bundle, loaded, path, source)
    decision = bundle.decision
    compared = ComparedLabels(loaded.labels, decision is not None and decision.known_labels_only)
    items = _items(data, split, loaded)
    spec, scores = ClipSpec.from_dict(loaded.clip_spec), learned_scores(loaded)
    reference = run_model(ModelPredictor(loaded.model), items, spec, scores, compared, on_progress)
    if not reference.requests:
        raise ValueError(
            f"nothing can be read of the split {split!r} of {data}: "
            f"{len(items)} files, {reference.unreadable}"
        )
    report = {}
    for variant in bundle.variants:
        proof = VariantProof(variant, reference, compared)
        proof.check_graphs(bundle, on_progress)
        if not only_graphs:
            proof.check_server(bundle, serve, on_progress)
        report[variant] = {"collection": data.resolve().name, "split": split} | proof.report()
    if not only_graphs:
        add_report(bundle, report)
    return report


def add_report(bundle: Bundle, report: dict[str, Any]) -> None:
    """Put a report into a bundle: a copy is made beside it, sealed and verified, and takes its place.

    `bundle.json` and its seal cannot be replaced in one step, but a folder can be moved. Whatever fails, what
    stood there comes back. Only if the machine stops between the two moves does the old bundle stay, whole,
    in a folder `.part-*` beside its place.

    Raises:
        ProofError: the bundle was replaced after it was opened.
    """
    manifest = {name: value for name, value in bundle.manifest.items() if name != "files"}
    with tempfile.TemporaryDirectory(dir=bundle.path.parent, prefix=".part-") as part:
        folder = Path(part) / "bundle"
        shutil.copytree(bundle.path, folder)
        if read_bundle(folder).sha256 != bundle.sha256:
            raise ProofError(f"{bundle.path} was replaced while it was being proven; prove it again")
        seal_bundle(folder, manifest | {"end_to_end": report})
        read_bundle(folder)
        replace_folder(folder, bundle.path, aside=Path(part) / "replaced")


def _check_bundle(bundle: Bundle, checkpoint: Checkpoint, path: Path, source: Path) -> None:
    """Raise ValueError for other labels than the checkpoint's, or a variant without known limits."""
    if sorted(str(label["id"]) for label in checkpoint.labels) != sorted(label.id for label in bundle.labels):
        raise ValueError(
            f"{path} has other labels than {source}; give the checkpoint that it was exported from"
        )
    if unknown := sorted(bundle.variants.keys() - TOLERANCES.keys()):
        raise ValueError(
            f"{path} has the variants {unknown}, of which nothing is known; there are {', '.join(TOLERANCES)}"
        )


def _items(data: Path, split: str, checkpoint: Checkpoint) -> list[Item]:
    """Clips of the split, as the checkpoint was trained on such.

    Without labels where it learned from teachers: those of the collections are then not its own.

    Raises ValueError for labels it does not know.
    """
    known = {str(label["id"]) for label in checkpoint.labels}
    items = [
        item for item in trained_spans(checkpoint.extra).of(read_items(data).items) if item.split == split
    ]
    if checkpoint.extra.get("recipe", {}).get("distillation") is not None:
        return [replace(item, labels=()) for item in items]
    if unknown := sorted({label for item in items for label in item.labels} - known):
        raise ValueError(
            f"{data} has labels that the model does not know: {', '.join(unknown[:5])}; give its collection"
        )
    return items
