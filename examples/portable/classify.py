"""Labels of a clip from a bundle, with numpy and ONNX Runtime and nothing of Zorro AV.

    python classify.py BUNDLE --sound sound.wav --frames frames.rgb --fps 25
    python classify.py BUNDLE --self-test

BUNDLE is a folder NAME/VERSION with bundle.json. README.md says how FFmpeg makes the two files out of a clip.
"""

import argparse
import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from front_end import Spec, Window, cut_windows, log_mel

CPU = "CPUExecutionProvider"
MAX_BATCH_SIZE = 8
MAX_AMPLITUDE = 8.0  # of full scale 1; anything beyond is damage
MAX_LOG_MEL_ERROR = 1e-3
SAMPLE_TYPES = {(1, 16): ("<i2", 2.0**15), (1, 32): ("<i4", 2.0**31), (3, 32): ("<f4", 1.0)}
"""WAV format tag and bits per sample to dtype and full scale."""
STREAM_OF = {"audio": "audio", "video": "video", "fused": "fusion"}
"""The name that an answer has in the graphs' outputs."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What bundle.json says, for one variant."""

    path: Path
    spec: Spec
    labels: list[dict[str, Any]]
    scores: str
    """How they come from logits: softmax, where labels compete, or sigmoid, where each stands for itself."""
    decision: dict[str, Any]
    """Which labels a stream may answer with, and the least probability of one; empty for all of them."""
    graphs: dict[str, Path]
    """By what they read: audio, video, fused (both)."""
    max_abs_error: float
    """How far the answers to the golden clips may be from the stored ones."""


def read_bundle(path: Path, variant: str | None) -> Bundle:
    """The bundle at `path`; without a variant, the one that its table gives to the CPU.

    Raises:
        ValueError: there is no such variant, or scores come from logits in a way that is not known here.
    """
    manifest = json.loads((path / "bundle.json").read_text())
    if "variants" in manifest:
        table = manifest["variant_of"]
        name = variant or table.get(CPU, table["*"])
        if name not in manifest["variants"]:
            raise ValueError(f"--variant {name}: the bundle has {', '.join(manifest['variants'])}")
        chosen = manifest["variants"][name]
        max_abs_error = chosen["tolerance"]["max_abs_error"]
    else:  # schema 1: one variant, which has no name
        if variant is not None:
            raise ValueError(f"--variant {variant}: the bundle has no variants; leave it out")
        chosen, max_abs_error = manifest, manifest["golden"]["tolerance"]
    scores = manifest.get("scores", "softmax")
    if scores not in SCORES:
        raise ValueError(
            f"{path} has scores={scores!r}, known here are {', '.join(SCORES)}; copy a newer example"
        )
    graphs = {name: path / graph["file"] for name, graph in chosen["graphs"].items()}
    decision = manifest.get("decision", {})
    return Bundle(path, manifest["clip_spec"], manifest["labels"], scores, decision, graphs, max_abs_error)


def read_wav(path: Path, sample_rate: int) -> np.ndarray:
    """Mono float32 samples: the mean of all channels.

    Raises:
        ValueError: no WAV file, or one of another sample rate or format.
    """
    content = path.read_bytes()
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError(f"{path} is no WAV file; make one with FFmpeg, as README.md says")
    chunks, position = {}, 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        chunks[name] = content[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    if len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise ValueError(f"{path} has no format or no samples; is the file complete?")
    tag, num_channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if tag == 0xFFFE and len(chunks[b"fmt "]) >= 26:  # extensible: the tag is the start of a longer one
        (tag,) = struct.unpack_from("<H", chunks[b"fmt "], 24)
    if rate != sample_rate or (tag, bits) not in SAMPLE_TYPES:
        raise ValueError(
            f"{path} has {rate} Hz and {bits} bits, format {tag}; make it with -ar {sample_rate} -c:a "
            "pcm_f32le"
        )
    dtype, full_scale = SAMPLE_TYPES[tag, bits]
    whole = len(chunks[b"data"]) // (bits // 8 * num_channels) * (bits // 8 * num_channels)
    samples = np.frombuffer(chunks[b"data"][:whole], dtype).reshape(-1, num_channels) / full_scale
    samples = np.where(np.abs(samples) < 1e6, samples, 0)  # false for NaN
    return samples.mean(axis=1).clip(-MAX_AMPLITUDE, MAX_AMPLITUDE).astype(np.float32)


def read_frames(path: Path, frame_size: int) -> np.ndarray:
    """Raw RGB frames, uint8 [frames, frame_size, frame_size, 3].

    Raises:
        ValueError: no whole number of frames.
    """
    content = np.fromfile(path, np.uint8)
    if len(content) % (frame_size * frame_size * 3):
        raise ValueError(
            f"{path} holds no whole number of frames of {frame_size}x{frame_size} pixels; see README.md"
        )
    return content.reshape(-1, frame_size, frame_size, 3)


def run_graph(graph: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs by name, in batches."""
    session = onnxruntime.InferenceSession(graph, providers=[CPU])
    names = [value.name for value in session.get_outputs()]
    count = len(next(iter(inputs.values())))
    parts = [
        session.run(names, {name: array[i : i + MAX_BATCH_SIZE] for name, array in inputs.items()})
        for i in range(0, count, MAX_BATCH_SIZE)
    ]
    return {
        name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)
    }


def classify(bundle: Bundle, windows: Sequence[Window], *, top_k: int) -> dict[str, list[dict[str, Any]]]:
    """The best labels for the whole clip, by stream: audio, video and fused, or the one that there is."""
    arrays = {name: [getattr(window, name) for window in windows] for name in ("audio", "video")}
    inputs = {name: np.stack(values) for name, values in arrays.items() if values[0] is not None}
    graph = "fused" if len(inputs) == 2 else next(iter(inputs))
    outputs = run_graph(bundle.graphs[graph], inputs)
    streams = STREAM_OF if graph == "fused" else [graph]
    found = {}
    for stream in streams:
        logits, weights = (
            outputs[f"{STREAM_OF[stream]}_logits"],
            [window.weight(stream) for window in windows],
        )
        found[stream] = best_labels(bundle, stream, SCORES[bundle.scores](logits, weights), top_k)
    return found


def pool(values: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Mean over windows, weighted by seconds of material; the plain mean where there is none."""
    return np.average(values, axis=0, weights=weights if any(weights) else None)


def softmax_scores(logits: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Probabilities for the whole clip, of labels that compete: the softmax of the mean over windows."""
    mean = pool(logits.astype(np.float64), weights)
    exps = np.exp(mean - mean.max())
    return exps / exps.sum()


def sigmoid_scores(logits: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Probabilities for the whole clip, of labels that are independent of each other.

    Each is the mean over windows of the label's sigmoids.
    """
    return pool(np.exp(-np.logaddexp(0.0, -logits.astype(np.float64))), weights)


SCORES = {"softmax": softmax_scores, "sigmoid": sigmoid_scores}
"""By the word in bundle.json; one that does not say is of softmax."""


def best_labels(bundle: Bundle, stream: str, scores: np.ndarray, top_k: int) -> list[dict[str, Any]]:
    """The `top_k` labels with the highest probability; none, if there is nothing the stream is sure of."""
    labels, decision = bundle.labels, bundle.decision
    every = stream == "fused" or not decision.get("known_labels_only", False)
    least = decision.get("threshold", {}).get(stream, 0.0)
    known = [i for i, label in enumerate(labels) if every or stream in label["modalities"]]
    best = sorted(known, key=lambda i: -scores[i])[:top_k]
    return [
        {"id": labels[i]["id"], "label": labels[i]["label"], "score": float(scores[i])}
        for i in best
        if scores[i] >= least
    ]


def self_test(bundle: Bundle) -> dict[str, float]:
    """Largest error of each graph's answers to the golden clips.

    Raises:
        ValueError: one is larger than the bundle allows.
    """
    inputs, expected = (np.load(bundle.path / "golden" / name) for name in ("inputs.npz", "outputs.npz"))
    errors = {}
    for graph, path in bundle.graphs.items():
        names = ("audio", "video") if graph == "fused" else (graph,)
        outputs = run_graph(path, {name: inputs[name] for name in names})
        errors[graph] = max(
            float(np.abs(value - expected[f"{graph}.{name}"]).max()) for name, value in outputs.items()
        )
        if not errors[graph] <= bundle.max_abs_error:  # so written, NaN fails
            raise ValueError(
                f"{path.name} is off by {errors[graph]:.2g} on the golden clips, allowed are "
                f"{bundle.max_abs_error:g}; "
                "copy the bundle again, or use another ONNX Runtime"
            )
    return errors


def front_end_error(bundle: Bundle) -> float:
    """Largest error of the log-mel spectrogram of the first golden clip, whose sound is a chirp.

    Raises:
        ValueError: it is larger than `MAX_LOG_MEL_ERROR`.
    """
    spec = bundle.spec
    t = np.arange(spec["num_mel_frames"] * spec["hop_length"]) / spec["sample_rate"]
    chirp = 0.5 * np.sin(2 * np.pi * (100 * t + 300 * t**2))
    error = float(
        np.abs(log_mel(chirp, spec) - np.load(bundle.path / "golden" / "inputs.npz")["audio"][0]).max()
    )
    if not error <= MAX_LOG_MEL_ERROR:
        raise ValueError(
            f"log-mel is off by {error:.2g} on the golden chirp, allowed are {MAX_LOG_MEL_ERROR:g}"
        )
    return error


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and print the answer as JSON."""
    parser = argparse.ArgumentParser(description="Labels of a clip from a bundle, as JSON.")
    parser.add_argument("bundle", type=Path, help="folder NAME/VERSION with bundle.json")
    parser.add_argument("--sound", type=Path, help="WAV file at the bundle's sample rate, any channels")
    parser.add_argument("--frames", type=Path, help="raw RGB frames of the bundle's frame size")
    parser.add_argument("--fps", type=Fraction, help="frames per second, as 25 or 30000/1001")
    parser.add_argument("--top-k", type=int, default=5, help="how many labels")
    parser.add_argument("--variant", help="which of the bundle's; default the CPU's")
    parser.add_argument("--self-test", action="store_true", help="answer the bundle's golden clips instead")
    options = parser.parse_args(arguments)
    if options.frames is not None and not (options.fps and options.fps > 0):
        parser.error("--frames needs --fps, the rate that they were made with")
    if options.top_k < 1:
        parser.error(f"--top-k {options.top_k}: ask for at least 1 label")
    try:
        answer = _answer(options)
    except (ValueError, OSError) as error:
        sys.exit(f"classify: {error}")
    print(json.dumps(answer, indent=1))


def _answer(options: argparse.Namespace) -> dict[str, Any]:
    bundle = read_bundle(options.bundle, options.variant)
    if options.self_test:
        return {
            "max_abs_error": self_test(bundle),
            "allowed": bundle.max_abs_error,
            "log_mel": front_end_error(bundle),
        }
    spec = bundle.spec
    waveform = None if options.sound is None else read_wav(options.sound, spec["sample_rate"])
    frames = None if options.frames is None else read_frames(options.frames, spec["frame_size"])
    windows = cut_windows(spec, waveform=waveform, frames=frames, fps=float(options.fps or 0))
    return classify(bundle, windows, top_k=options.top_k)


if __name__ == "__main__":
    main()
