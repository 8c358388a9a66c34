"""A checkpoint becomes a bundle: graphs, proof of purity and parity, golden clips, card, and a seal over all of it.

The bundle is made beside its place and moved there whole, so there is never half a bundle.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from media import Clip, ClipSpec, Modality
from models.weights import Checkpoint, load_checkpoint
from runtime.bundle import MANIFEST_FILE, SCHEMA_VERSION, SEAL_FILE, sha256_of
from runtime.pipeline import Zorro
from runtime.selftest import GOLDEN_INPUTS_FILE, GOLDEN_OUTPUTS_FILE
from runtime.signature import INPUTS, input_tensors, output_names

from .audit import OPSET_VERSION, audit_graph
from .golden import golden_inputs
from .model_card import fill_card
from .parity import check_parity
from .purity import prove_purity
from .to_onnx import export_graphs

GOLDEN_TOLERANCE = 1e-3  # processors differ in the order of sums; a wrong graph is off by far more


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    name: str,
    version: str,
    clips: Mapping[Modality, Sequence[Clip]] | None = None,
    model_card: str = "",
    metrics: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    force: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the bundle `out`; returns its path.

    Args:
        checkpoint: folder that training wrote.
        out: folder to be made.
        name: of the model.
        version: of the model.
        clips: real windows on which parity is checked beside the golden ones, by modality.
        model_card: Markdown for people, with marks as in `model_card`.
        metrics: scores, as `zorro evaluate` gives them.
        about: licence and provenance of the training data.
        force: replace a bundle that is there.
        on_progress: told of each stage.

    Raises:
        ValueError: a name or version that is none, labels that are not those of the model's logits, or a card whose
            marks cannot be filled.
        FileExistsError: there is one already.
        CheckpointError, AuditError, ImpureGraphError, ParityError: it must not be exported.
    """
    out = Path(out)
    for what, value in (("name", name), ("version", version)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(f"{what}={value!r}; give letters, digits, '.', '_' or '-', beginning with a letter or digit")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists; choose another version, or force its replacement")
    loaded = load_checkpoint(checkpoint)
    if len(loaded.labels) != loaded.config.num_classes:
        raise ValueError(f"got {len(loaded.labels)} labels for {loaded.config.num_classes} logits; save it again")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as part:
        folder = Path(part) / "bundle"
        (folder / "golden").mkdir(parents=True)
        manifest = _fill(folder, loaded, clips or {}, on_progress)
        card = model_card or f"# {name}\n\nNo card was given: <!-- training -->.\n"
        (folder / "MODEL_CARD.md").write_text(fill_card(card, metrics=metrics or {}, manifest=manifest))
        manifest = {"schema_version": SCHEMA_VERSION, "name": name, "version": version, **manifest}
        seal_bundle(folder, manifest | {"metrics": metrics or {}, "about": about or {}})
        on_progress("self-test")
        Zorro.open(folder).self_test()
        _move(folder, out, aside=Path(part) / "replaced")
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


def _move(folder: Path, out: Path, *, aside: Path) -> None:
    """Put `folder` in the place of `out`; what stood there comes back if that fails."""
    replaces = out.exists()
    if replaces:
        out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        if replaces:
            aside.rename(out)
        raise


def _fill(
    folder: Path,
    loaded: Checkpoint,
    clips: Mapping[Modality, Sequence[Clip]],
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    """Write graphs and golden clips; returns what the manifest says of them."""
    spec = ClipSpec.from_dict(loaded.clip_spec)
    on_progress("graphs")
    paths = export_graphs(loaded.model, spec, folder)
    on_progress("audit")
    for path in paths.values():
        audit_graph(path)
    on_progress("purity")
    purity = {str(modality): prove_purity(path, modality) for modality, path in paths.items()}
    on_progress("parity")
    golden = _write_golden(folder, spec, paths)
    parity = {"golden": check_parity(loaded.model, folder, golden)}
    if clips:
        parity["real"] = check_parity(loaded.model, folder, clips)
    return {
        "clip_spec": spec.to_dict(),
        "clip_spec_hash": spec.hash,
        "labels": loaded.labels,
        "graphs": {str(modality): _describe(modality, spec, path) for modality, path in paths.items()},
        "opset_version": OPSET_VERSION,
        "model": {
            "config": loaded.config.to_dict(),
            "num_parameters": sum(p.numel() for p in loaded.model.parameters()),
        },
        "training": {k: loaded.extra[k] for k in sorted(loaded.extra)},
        "purity": purity,
        "parity": parity,
        "golden": {"clips": len(next(iter(golden.values()))), "tolerance": GOLDEN_TOLERANCE},
    }


def _describe(modality: Modality, spec: ClipSpec, path: Path) -> dict[str, Any]:
    """What the manifest says of a graph: its file, and its tensors with the batch as the first axis."""
    inputs = [{"name": x.name, "dtype": x.dtype, "shape": ["batch", *x.shape]} for x in input_tensors(modality, spec)]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [{"name": x.name, "dtype": "float32", "shape": ["batch", *x.shape[1:]]} for x in session.get_outputs()]
    return {"file": path.name, "inputs": inputs, "outputs": outputs}


def _write_golden(folder: Path, spec: ClipSpec, paths: dict[Modality, Path]) -> dict[Modality, list[Clip]]:
    """Store the golden clips and the graphs' answers to them; returns the clips."""
    inputs = golden_inputs(spec)
    outputs: dict[str, np.ndarray] = {}
    for modality, path in paths.items():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = output_names(modality)
        values = session.run(names, {name: inputs[name] for name in INPUTS[modality]})
        outputs |= {f"{modality}.{name}": value for name, value in zip(names, values, strict=True)}
    _save(folder / GOLDEN_INPUTS_FILE, inputs)
    _save(folder / GOLDEN_OUTPUTS_FILE, outputs)
    seconds = spec.window_seconds
    clips = [
        Clip(0.0, seconds, audio, video, seconds, seconds, is_silent=False, padded=False)
        for audio, video in zip(inputs["audio"], inputs["video"], strict=True)
    ]
    return dict.fromkeys(Modality, clips)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(path, allow_pickle=False, **arrays)
