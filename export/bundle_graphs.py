"""The graphs of a bundle in every variant, and what the manifest says of them.

Each graph is audited, and proven pure and equal to the model.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from media import Clip, ClipSpec, Modality
from media.progress import OnProgress
from models.weights import Checkpoint
from runtime.providers import CPU
from runtime.selftest import GOLDEN_INPUTS_FILE, GOLDEN_OUTPUTS_FILE
from runtime.signature import GRAPH_INPUTS, input_tensors, output_names

from .audit import OPSET_VERSION, audit_graph
from .checkpoint_scores import learned_scores
from .golden import golden_inputs
from .parity import ParityCheck, ParityError
from .purity import prove_purity
from .quantize import QuantisationError
from .to_onnx import export_graphs
from .variants import FOR_CPUS, GOLDEN_TOLERANCES, TOLERANCES, Calibration, provider_table, write_variant


def write_bundle_graphs(
    folder: Path,
    loaded: Checkpoint,
    *,
    variants: Sequence[str],
    may_lack: Collection[str],
    clips: Mapping[Modality, Sequence[Clip]],
    calibration: Calibration,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Write graphs and golden clips into `folder`; returns the manifest.

    Args:
        folder: of the bundle.
        loaded: the checkpoint.
        variants: which to write, `fp32` among them.
        may_lack: variants that are left out, with the reason in the manifest, where they cannot be made.
        clips: real windows on which parity is checked beside the golden ones.
        calibration: windows for the ranges of int8.
        on_progress: told of the graphs, and of the steps of each variant.

    Raises:
        ValueError, AuditError, ImpureGraphError, ParityError: see `bundle_writer.export_checkpoint`.
    """
    spec = ClipSpec.from_dict(loaded.clip_spec)
    full = export_graphs(loaded.model, spec, folder / "fp32", on_progress=on_progress)
    golden = write_golden(folder, spec, full)
    by_source = {"golden": golden} | ({"real": clips} if clips else {})
    checks = {source: ParityCheck(loaded.model, chosen) for source, chosen in by_source.items()}
    writer = _VariantWriter(folder, spec, checks, on_progress)
    described = {"fp32": writer.check("fp32", full)}
    left_out: dict[str, str] = {}
    ranges_on = calibration.beside(golden)
    for name in (name for name in variants if name != "fp32"):
        try:
            described[name] = writer.write(name, full, ranges_on)
        except (QuantisationError, ParityError) as error:
            if name not in may_lack:
                raise
            left_out[name] = str(error)
            shutil.rmtree(folder / name, ignore_errors=True)
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
        "training": {k: loaded.extra[k] for k in sorted(loaded.extra) if k != "decision"},
        "golden": {"clips": len(next(iter(golden.values())))},
    }


class _VariantWriter:
    """Writes variants of the float32 graphs into a bundle's folder, and checks each."""

    def __init__(
        self, folder: Path, spec: ClipSpec, checks: Mapping[str, ParityCheck], on_progress: OnProgress
    ) -> None:
        self._folder, self._spec, self._checks, self._on_progress = folder, spec, checks, on_progress

    def write(self, name: str, full: Mapping[Modality, Path], calibration: Calibration) -> dict[str, Any]:
        """Derive a variant from the float32 graphs and check it; returns what the manifest says of it."""
        self._on_progress(name, 0, self._num_steps)
        graphs, kept = write_variant(
            name, full, self._folder / name, calibration=calibration, on_progress=self._on_progress
        )
        return self.check(name, graphs) | {"float32_layers": kept}

    def check(self, name: str, paths: Mapping[Modality, Path]) -> dict[str, Any]:
        """Check audit, purity and parity of a variant's graphs; returns what the manifest says of it."""
        self._on_progress(name, 1, self._num_steps)
        for path in paths.values():
            audit_graph(path, for_tensorrt=name not in FOR_CPUS)
        self._on_progress(name, 2, self._num_steps)
        purity = {str(modality): prove_purity(path, modality) for modality, path in paths.items()}
        self._on_progress(name, 3, self._num_steps)
        # Where it is made float32 keeps the narrow limits on golden clips too; the wide ones are for other
        # processors.
        golden = TOLERANCES[name] if name == "fp32" else GOLDEN_TOLERANCES[name]
        tolerances = {"golden": golden, "real": TOLERANCES[name]}
        parity = {}
        for done, (source, check) in enumerate(self._checks.items(), start=4):
            parity[source] = check.run(paths, tolerances[source])
            self._on_progress(name, done, self._num_steps)
        return {
            "graphs": {str(m): _describe(m, self._spec, self._folder, path) for m, path in paths.items()},
            "purity": purity,
            "parity": parity,
            "tolerance": asdict(GOLDEN_TOLERANCES[name]),
        }

    @property
    def _num_steps(self) -> int:
        """Steps of a variant.

        It is written, audited, proven pure, and compared with the model on each source of clips.
        """
        return 3 + len(self._checks)


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


def write_golden(folder: Path, spec: ClipSpec, paths: dict[Modality, Path]) -> dict[Modality, list[Clip]]:
    """Write the golden clips and the graphs' answers to them; returns the clips."""
    inputs = golden_inputs(spec)
    outputs: dict[str, np.ndarray] = {}
    for modality, path in paths.items():
        session = onnxruntime.InferenceSession(path, providers=[CPU])
        names = output_names(modality)
        values = session.run(names, {name: inputs[name] for name in GRAPH_INPUTS[modality]})
        outputs |= {f"{modality}.{name}": value for name, value in zip(names, values, strict=True)}
    (folder / GOLDEN_INPUTS_FILE).parent.mkdir(exist_ok=True)
    np.savez_compressed(folder / GOLDEN_INPUTS_FILE, allow_pickle=False, **inputs)
    np.savez_compressed(folder / GOLDEN_OUTPUTS_FILE, allow_pickle=False, **outputs)
    seconds = spec.window_seconds
    clips = [
        Clip(0.0, seconds, audio, video, seconds, seconds, is_silent=False, padded=False)
        for audio, video in zip(inputs["audio"], inputs["video"], strict=True)
    ]
    return dict.fromkeys(Modality, clips)
