"""Bundles whose bytes are as they were sealed, but which mean nothing, or something else than they say."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from export.bundle_writer import seal_bundle
from media import Modality
from runtime import Scores, Zorro, read_bundle
from runtime.errors import BundleCorrupt, BundleIncompatible, ZorroError


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def _manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bundle.json").read_text())


def _seal_as_is(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    (folder / "bundle.sha256").write_text(hashlib.sha256(content).hexdigest() + "\n")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{}"])
def test_a_sealed_manifest_that_is_none_is_refused(content: bytes, copy: Path) -> None:
    _seal_as_is(copy, content)
    with pytest.raises(BundleIncompatible, match="export it again"):
        read_bundle(copy)


@pytest.mark.parametrize(
    "key",
    [
        "schema_version",
        "name",
        "version",
        "files",
        "clip_spec",
        "clip_spec_hash",
        "labels",
        "variants",
        "variant_of",
    ],
)
def test_a_manifest_that_lacks_a_part_is_refused(key: str, copy: Path) -> None:
    manifest = _manifest(copy)
    del manifest[key]
    _seal_as_is(copy, json.dumps(manifest).encode())
    with pytest.raises(BundleIncompatible, match=f"lacks or garbles '{key}'"):
        read_bundle(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": 3},
        {"labels": [{"id": "a"}]},
        {"variants": []},
        {"variants": {"fp32": {}}},
        {"variant_of": 3},
        {"clip_spec": {}},
        {"files": []},
    ],
)
def test_a_manifest_of_other_types_is_refused(change: dict[str, Any], copy: Path) -> None:
    _seal_as_is(copy, json.dumps(_manifest(copy) | change).encode())
    with pytest.raises(BundleIncompatible, match="lacks or garbles"):
        read_bundle(copy)


@pytest.mark.parametrize("word", ["tanh", "", None, 3, ["softmax"]])
def test_scores_of_an_unknown_kind_are_refused(word: object, copy: Path) -> None:
    _seal_as_is(copy, json.dumps(_manifest(copy) | {"scores": word}).encode())
    with pytest.raises(
        BundleIncompatible, match="has scores=.*, this version knows softmax, sigmoid; update it, or export"
    ):
        read_bundle(copy)


def test_a_bundle_of_before_there_was_a_choice_means_softmax(bundle: Path, copy: Path) -> None:
    manifest = _manifest(copy)
    assert manifest.pop("scores") == "softmax"
    _seal_as_is(copy, json.dumps(manifest).encode())
    assert read_bundle(copy).scores == read_bundle(bundle).scores == Scores.SOFTMAX


def test_a_file_without_a_hash_is_refused(copy: Path) -> None:
    manifest = _manifest(copy)
    del manifest["files"]["fp32/video.onnx"]
    _seal_as_is(copy, json.dumps(manifest).encode())
    with pytest.raises(BundleIncompatible, match=r"no sha256 of \['fp32/video.onnx'\]"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "golden/../../outside"])
def test_a_file_outside_the_bundle_is_refused(name: str, copy: Path) -> None:
    manifest = _manifest(copy)
    manifest["files"][name] = "0" * 64
    _seal_as_is(copy, json.dumps(manifest).encode())
    with pytest.raises(BundleIncompatible, match="outside the bundle"):
        read_bundle(copy)


def test_a_shortened_and_a_lengthened_file_are_refused(copy: Path) -> None:
    weights = (copy / "fp32" / "weights.bin").read_bytes()
    for content in (weights[:-1], weights + b"\0", b""):
        (copy / "fp32" / "weights.bin").write_bytes(content)
        with pytest.raises(BundleCorrupt, match=r"weights\.bin has other bytes"):
            read_bundle(copy)


@pytest.mark.parametrize("table", [{}, {"*": "fp16"}, {"*": "fp32", "CUDAExecutionProvider": "fp16"}])
def test_a_provider_without_a_variant_is_refused(table: dict[str, str], copy: Path) -> None:
    _seal_as_is(copy, json.dumps(_manifest(copy) | {"variant_of": table}).encode())
    with pytest.raises(BundleIncompatible, match=r"gives providers .*, it holds \['fp32'\]"):
        read_bundle(copy)


def test_swapped_graphs_are_refused(copy: Path) -> None:
    audio, video = (copy / "fp32" / "audio.onnx").read_bytes(), (copy / "fp32" / "video.onnx").read_bytes()
    (copy / "fp32" / "audio.onnx").write_bytes(video)
    (copy / "fp32" / "video.onnx").write_bytes(audio)
    seal_bundle(copy, _manifest(copy))
    with pytest.raises(BundleIncompatible, match="another modality: got video, the bundle wants audio"):
        Zorro.open(copy).session(Modality.AUDIO)


def test_a_graph_that_answers_less_is_refused(copy: Path) -> None:
    model = onnx.load(copy / "fp32" / "audio.onnx", load_external_data=False)
    del model.graph.output[1]
    (copy / "fp32" / "audio.onnx").write_bytes(model.SerializeToString())
    seal_bundle(copy, _manifest(copy))
    with pytest.raises(BundleIncompatible, match="another outputs"):
        Zorro.open(copy).session(Modality.AUDIO)


def test_a_graph_with_another_number_of_labels_is_refused(copy: Path) -> None:
    manifest = _manifest(copy)
    seal_bundle(copy, manifest | {"labels": manifest["labels"][:-1]})
    with pytest.raises(
        BundleIncompatible, match=r"another number of labels: got \{4\}, the bundle wants \{3\}"
    ):
        Zorro.open(copy).session(Modality.FUSED)


def test_a_graph_that_onnx_runtime_cannot_read_is_refused(copy: Path) -> None:
    (copy / "fp32" / "audio.onnx").write_bytes(b"no graph at all")
    seal_bundle(copy, _manifest(copy))
    with pytest.raises(BundleIncompatible, match=r"does not open .*audio\.onnx"):
        Zorro.open(copy).session(Modality.AUDIO)


def test_every_error_has_its_own_code() -> None:
    kinds, todo = [], [ZorroError]
    while todo:
        kinds.append(kind := todo.pop())
        todo += kind.__subclasses__()
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and code.isidentifier() for code in codes)
