"""A checkpoint becomes a bundle: graphs, proof of purity and parity, golden clips, card, and a seal over all of it.

The bundle is made beside its place and moved there whole, so there is never half a bundle.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from media import Clip, ClipSpec, Modality
from models.weights import Checkpoint, copy_checkpoint, load_checkpoint
from runtime.bundle import (
    CARD_FILE,
    CHECKPOINT_FOLDER,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    SEAL_FILE,
    read_bundle,
    sha256_of,
)
from runtime.pipeline import Zorro
from runtime.providers import CPU
from runtime.selftest import GOLDEN_INPUTS_FILE, GOLDEN_OUTPUTS_FILE
from runtime.signature import GRAPH_INPUTS, input_tensors, output_names

from .atomic_folder import replace_folder
from .audit import OPSET_VERSION, audit_graph
from .checkpoint_scores import learned_scores
from .golden import golden_inputs
from .model_card import fill_card
from .parity import ParityCheck, ParityError
from .purity import prove_purity
from .quantize import QuantisationError
from .to_onnx import export_graphs
from .variants import (
    FOR_CPUS,
    GOLDEN_TOLERANCES,
    TOLERANCES,
    Calibration,
    check_variants,
    provider_table,
    write_variant,
)


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    name: str,
    version: str,
    variants: Sequence[str] = ("fp32",),
    may_lack: Collection[str] = (),
    clips: Mapping[Modality, Sequence[Clip]] | None = None,
    calibration: Calibration | None = None,
    model_card: str = "",
    metrics: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    with_checkpoint: bool = True,
    force: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the bundle `out`; returns its path.

    Args:
        checkpoint: folder that training wrote.
        out: folder to be made.
        name: of the model.
        version: of the model.
        variants: which to write, of `variants.VARIANTS`; `fp32` among them.
        may_lack: variants that are left out, with the reason in the manifest, where the model cannot be had
            in them.
        clips: real windows on which parity is checked beside the golden ones, by modality.
        calibration: windows of the training split, which variants of int8 need.
        model_card: Markdown for people, with marks as in `model_card`.
        metrics: scores, as `zorro evaluate` gives them.
        about: licence and provenance of the training data.
        with_checkpoint: put the checkpoint in too, so that whoever has the bundle can train on, export anew
            and prove.
        force: replace a bundle that is there.
        on_progress: told of each stage.

    Raises:
        ValueError: a name, version or variant that is none, labels that are not those of the model's logits,
            a card whose marks cannot be filled, or numbers in which the model cannot be had.
        FileExistsError: there is one already.
        CheckpointError, AuditError, ImpureGraphError, ParityError: it must not be exported.
    """
    out = Path(out)
    for what, value in (("name", name), ("version", version)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(
                f"{what}={value!r}; give letters, digits, '.', '_' or '-', beginning with a letter or digit"
            )
    check_variants(variants, calibration)
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists; choose another version, or force its replacement")
    loaded = load_checkpoint(checkpoint)
    if len(loaded.labels) != loaded.config.num_classes:
        raise ValueError(
            f"got {len(loaded.labels)} labels for {loaded.config.num_classes} logits; save it again"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as part:
        folder = Path(part) / "bundle"
        (folder / "golden").mkdir(parents=True)
        manifest = _Writer(folder, loaded, on_progress).fill(
            variants, clips or {}, calibration or Calibration(), may_lack
        )
        card = model_card or f"# {name}\n\nNo card was given: <!-- training -->.\n"
        (folder / CARD_FILE).write_text(fill_card(card, metrics=metrics or {}, manifest=manifest))
        if with_checkpoint:
            copy_checkpoint(checkpoint, folder / CHECKPOINT_FOLDER)
        manifest = {"schema_version": SCHEMA_VERSION, "name": name, "version": version, **manifest}
        seal_bundle(folder, manifest | {"metrics": metrics or {}, "about": about or {}})
        on_progress("self-test")
        written = read_bundle(folder)
        for variant in written.variants:
            Zorro(written, variant=variant).self_test()
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


class _Writer:
    """Graphs and golden clips of one bundle, and what its manifest says of them."""

    def __init__(self, folder: Path, loaded: Checkpoint, on_progress: Callable[[str], None]) -> None:
        self._folder, self._loaded, self._on_progress = folder, loaded, on_progress
        self._spec = ClipSpec.from_dict(loaded.clip_spec)

    def fill(
        self,
        variants: Sequence[str],
        clips: Mapping[Modality, Sequence[Clip]],
        calibration: Calibration,
        may_lack: Collection[str],
    ) -> dict[str, Any]:
        """Write everything; returns the manifest."""
        loaded, spec = self._loaded, self._spec
        self._on_progress("graphs")
        full = export_graphs(loaded.model, spec, self._folder / "fp32")
        golden = _write_golden(self._folder, spec, full)
        given = {"golden": golden} | ({"real": clips} if clips else {})
        checks = {what: ParityCheck(loaded.model, chosen) for what, chosen in given.items()}
        described = {"fp32": self._prove("fp32", full, checks)}
        left_out: dict[str, str] = {}
        seen = calibration.beside(golden)
        for name in (name for name in variants if name != "fp32"):
            try:
                described[name] = self._derive(name, full, seen, checks)
            except (QuantisationError, ParityError) as error:
                if name not in may_lack:
                    raise
                left_out[name] = str(error)
                shutil.rmtree(self._folder / name, ignore_errors=True)
        return {
            "clip_spec": spec.to_dict(),
            "clip_spec_hash": spec.hash,
            "labels": loaded.labels,
            "scores": str(learned_scores(loaded)),
            "variants": described,
            "left_out": left_out,
            "variant_of": provider_table(tuple(described)),
            "opset_version": OPSET_VERSION,
            "model": {
                "config": loaded.config.to_dict(),
                "num_parameters": sum(p.numel() for p in loaded.model.parameters()),
            },
            "training": {k: loaded.extra[k] for k in sorted(loaded.extra)},
            "golden": {"clips": len(next(iter(golden.values())))},
        }

    def _derive(
        self,
        name: str,
        full: Mapping[Modality, Path],
        calibration: Calibration,
        checks: Mapping[str, ParityCheck],
    ) -> dict[str, Any]:
        """Write and prove one variant."""
        self._on_progress(name)
        graphs, kept = write_variant(
            name, full, self._folder / name, calibration=calibration, on_progress=self._on_progress
        )
        return self._prove(name, graphs, checks) | {"float32_layers": kept}

    def _prove(
        self, name: str, paths: Mapping[Modality, Path], checks: Mapping[str, ParityCheck]
    ) -> dict[str, Any]:
        """Audit, purity and parity of a variant's graphs: what the manifest says of it."""
        self._on_progress(f"{name}: audit")
        for path in paths.values():
            audit_graph(path, for_tensorrt=name not in FOR_CPUS)
        self._on_progress(f"{name}: purity")
        purity = {str(modality): prove_purity(path, modality) for modality, path in paths.items()}
        self._on_progress(f"{name}: parity")
        # Where it is made float32 keeps the narrow limits on golden clips too; the wide ones are for other
        # processors.
        golden = TOLERANCES[name] if name == "fp32" else GOLDEN_TOLERANCES[name]
        tolerances = {"golden": golden, "real": TOLERANCES[name]}
        return {
            "graphs": {str(m): _describe(m, self._spec, self._folder, path) for m, path in paths.items()},
            "purity": purity,
            "parity": {clips: check.run(paths, tolerances[clips]) for clips, check in checks.items()},
            "tolerance": asdict(GOLDEN_TOLERANCES[name]),
        }


def _describe(modality: Modality, spec: ClipSpec, folder: Path, path: Path) -> dict[str, Any]:
    """What the manifest says of a graph: its file, nodes, and tensors with the batch as the first axis."""
    graph = onnx.load(path, load_external_data=False).graph
    inputs = [
        {"name": x.name, "dtype": x.dtype, "shape": ["batch", *x.shape]}
        for x in input_tensors(modality, spec)
    ]
    outputs = [
        {
            "name": x.name,
            "dtype": "float32",
            "shape": ["batch", *(d.dim_value for d in x.type.tensor_type.shape.dim[1:])],
        }
        for x in graph.output
    ]
    file = path.relative_to(folder).as_posix()
    return {"file": file, "nodes": len(graph.node), "inputs": inputs, "outputs": outputs}


def _write_golden(folder: Path, spec: ClipSpec, paths: dict[Modality, Path]) -> dict[Modality, list[Clip]]:
    """Store the golden clips and the graphs' answers to them; returns the clips."""
    inputs = golden_inputs(spec)
    outputs: dict[str, np.ndarray] = {}
    for modality, path in paths.items():
        session = onnxruntime.InferenceSession(path, providers=[CPU])
        names = output_names(modality)
        values = session.run(names, {name: inputs[name] for name in GRAPH_INPUTS[modality]})
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
