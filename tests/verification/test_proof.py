"""`zorro bundle prove`: a good bundle passes and says so; damaged ones, sealed as if they were good, do not.

Most damage is done to graphs and is looked for without a server; one bundle is served in the place of
another.
"""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from cli.main import app
from export.bundle_writer import seal_bundle
from models.weights import load_checkpoint, save_checkpoint
from runtime import TimeRange, Zorro, read_bundle
from tests.deciding_bundle import MODALITIES, deciding_bundle
from tests.verification.conftest import ROWS
from tests.verification.damaged_bundles import (
    Damage,
    change_layer,
    copy_bundle,
    damaged_bundle,
    edit_graph,
    set_initialiser,
)
from verification import variant_proof
from verification.proof import _items, add_report, prove_bundle
from verification.server_process import free_port
from verification.variant_proof import ProofError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _few_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a decode process of the server's, which takes a while to start."""
    monkeypatch.setattr(variant_proof, "NUM_CLIENTS", 2)


def _swap_streams(copy: Path) -> None:
    other = {
        f"{x}_{kind}": f"{y}_{kind}"
        for x, y in (("audio", "video"), ("video", "audio"))
        for kind in ("features", "embedding", "logits")
    }

    def swap(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = other.get(name, name)

    edit_graph(copy, "fused", swap)


def _shift_mean(copy: Path) -> None:
    set_initialiser(copy, "audio", "audio_tokens.mean", lambda mean: mean + np.float32(2))


def _transpose_mel(copy: Path) -> None:
    """Time for frequency, read as if it were as before: all shapes fit."""

    def plant(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name == "audio":
                    node.input[i] = "read"
        graph.initializer.append(numpy_helper.from_array(np.array([0, 64, 32]), "shape"))
        graph.node.insert(0, helper.make_node("Reshape", ["transposed", "shape"], ["read"]))
        graph.node.insert(0, helper.make_node("Transpose", ["audio"], ["transposed"], perm=[0, 2, 1]))

    edit_graph(copy, "audio", plant)


def _exchange_labels(copy: Path) -> None:
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["labels"].reverse()
    (copy / "bundle.json").write_text(json.dumps(manifest))


def _break_numbers(copy: Path) -> None:
    set_initialiser(copy, "audio", "audio_tokens.mean", lambda mean: mean * np.float32(np.nan))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_swap_streams, r"fp32, graph, fused\.(audio|video): max_score_error is .*, the limit is 5e-05"),
        (_shift_mean, "fp32, graph, audio: max_score_error is"),
        (_transpose_mel, "fp32, graph, audio: max_score_error is"),
        (change_layer, "fp32, graph, video: max_score_error is"),
        (_exchange_labels, "fp32, graph, audio: max_score_error is"),
        (_break_numbers, "fp32, graph, audio: max_score_error is inf"),
    ],
    ids=lambda x: getattr(x, "__name__", "").strip("_"),
)
def test_damage_is_found(
    damage: Damage, said: str, bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    copy = damaged_bundle(bundle, tmp_path, damage)
    with pytest.raises(ProofError, match=said):
        prove_bundle(copy, checkpoint, collection, only_graphs=True)
    assert "end_to_end" not in read_bundle(copy).manifest


def test_a_graph_that_is_not_damaged_is_within_its_limits(
    bundle: Path, checkpoint: Path, collection: Path
) -> None:
    """The twin of the above: what was copied, edited by nothing, and sealed again."""
    before = (bundle / "bundle.sha256").read_bytes()
    report = prove_bundle(bundle, checkpoint, collection, only_graphs=True)
    assert report["fp32"]["graph"].keys() == {"audio", "video", "fused", "fused.audio", "fused.video"}
    assert (bundle / "bundle.sha256").read_bytes() == before, "half a proof is none, and is not written"


def test_labels_that_do_not_compete_are_proven(
    sigmoid_bundle: Path, sigmoid_checkpoint: Path, collection: Path
) -> None:
    report = prove_bundle(sigmoid_bundle, sigmoid_checkpoint, collection, only_graphs=True)
    assert all(x["max_score_error"] < 1e-5 for x in report["fp32"]["graph"].values())


def test_a_bundle_that_decides_is_proven_by_all_that_its_streams_may_answer(
    sigmoid_bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    """No label reaches its thresholds, and each of the labels is known by some of the streams."""
    decision = {"known_labels_only": True, "threshold": {"audio": 1, "video": 1, "fused": 1}}
    bundle = deciding_bundle(sigmoid_bundle, tmp_path, decision)
    source, loaded = tmp_path / "checkpoint", load_checkpoint(checkpoint)
    labels = [x | {"modalities": MODALITIES[x["id"]]} for x in loaded.labels]
    recipe = {"multi_label": True}
    save_checkpoint(source, loaded.model, clip_spec=loaded.clip_spec, labels=labels, recipe=recipe)
    report = prove_bundle(bundle, source, collection, only_graphs=True)
    assert all(x["max_score_error"] < 1e-5 for x in report["fp32"]["graph"].values())
    other = [x | {"modalities": ["video"]} for x in labels]
    save_checkpoint(source, loaded.model, clip_spec=loaded.clip_spec, labels=other, recipe=recipe)
    with pytest.raises(ProofError, match="fp32, graph, audio: max_score_error is"):
        prove_bundle(bundle, source, collection, only_graphs=True)


@pytest.mark.parametrize("said", [{"scores": "softmax"}, {}], ids=["otherwise", "not at all"])
def test_a_bundle_that_lets_them_compete_is_found(
    said: dict[str, str], sigmoid_bundle: Path, sigmoid_checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    copy = copy_bundle(sigmoid_bundle, tmp_path)
    manifest = json.loads((copy / "bundle.json").read_text())
    del manifest["scores"]
    seal_bundle(copy, manifest | said)
    with pytest.raises(ProofError, match="fp32, graph, audio: max_score_error is"):
        prove_bundle(copy, sigmoid_checkpoint, collection, only_graphs=True)


@pytest.fixture(scope="module")
def proven(
    bundle: Path, checkpoint: Path, collection: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`zorro bundle prove`, with a real server."""
    copy = copy_bundle(bundle, tmp_path_factory.mktemp("proven"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variant_proof, "NUM_CLIENTS", 2)
        patch.setenv("ZORRO_VARIANT", "int8-cpu")  # what is set for another server is not for this one
        _run("prove", copy, "--checkpoint", checkpoint, "--data", collection)
    return copy


def _run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["bundle", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def test_a_good_bundle_is_proven_and_says_so(proven: Path, bundle: Path, collection: Path) -> None:
    assert "every byte is as it was made" in _run("verify", proven)
    old, new = (json.loads((path / "bundle.json").read_text()) for path in (bundle, proven))
    report = new.pop("end_to_end")
    assert new == old, "nothing else has changed"
    assert report.keys() == {"fp32"}
    found = report["fp32"]
    assert found["collection"] == collection.name
    assert (found["clips"], found["unread"], found["not_asked"]) == (5, {"unsupported_media": 1}, [])
    for way in ("graph", "http", "http_against_graph"):
        counts = {stream: (x["clips"], x["windows"]) for stream, x in found[way].items()}
        fused = {"fused": (2, 4), "fused.audio": (2, 4), "fused.video": (2, 4)}
        assert counts == fused | {"audio": (3, 6), "video": (4, 7)}
        assert all(
            0 <= x["max_score_error"] < 1e-5 and x["min_cosine"] > 1 - 1e-5 for x in found[way].values()
        )
    assert found["clients"] == 2
    windows = (
        4 + 6 + 7
    )  # of the fused, the audio and the video graph; for labels and vectors, of the whole and of windows
    assert sum(int(size) * count for size, count in found["windows_of_batches"].items()) == 4 * windows


def test_extremes_are_named_with_their_errors(proven: Path) -> None:
    found = read_bundle(proven).manifest["end_to_end"]["fp32"]
    assert (found["shortest"]["file"], found["shortest"]["start_seconds"]) == ("film.mp4", 0.5)
    assert found["shortest"]["seconds"] == pytest.approx(0.2)
    assert found["longest"]["file"] == "film.mp4"
    assert found["longest"]["seconds"] == pytest.approx(2.0, abs=0.1)
    for extreme in ("shortest", "longest"):
        for way in ("graph", "http"):
            assert (
                0
                <= found[extreme][way]["max_score_error"]
                <= max(x["max_score_error"] for x in found[way].values())
            )


def test_accuracy_is_that_of_the_runtime(proven: Path, collection: Path) -> None:
    model = Zorro.open(proven)
    hits, clips = (
        [],
        (("film.mp4", "a", 0.0, None), ("film.mp4", "b", 0.28, 0.92), ("song.wav", "c", 0.0, None)),
    )
    for name, label, start, end in clips:
        result = model.classify(
            collection / name,
            modalities="audio",
            top_k=1,
            time_range=TimeRange(start_seconds=start, end_seconds=end),
        )
        hits.append(result.whole["audio"].labels[0].id == label)
    figures = read_bundle(proven).manifest["end_to_end"]["fp32"]["http"]["audio"]
    assert figures["top1"] == figures["top1_wanted"] == sum(hits) / 3
    assert figures["top1_points"] == 0


def test_a_server_of_another_bundle_is_found_by_its_answers(
    other_port: int, bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    copy = copy_bundle(bundle, tmp_path)
    with pytest.raises(ProofError, match="fp32, http, video: max_score_error is .*, the limit is 5e-05"):
        prove_bundle(copy, checkpoint, collection, serve=lambda *_: nullcontext(other_port))
    assert (copy / "bundle.sha256").read_bytes() == (bundle / "bundle.sha256").read_bytes()


def test_a_fault_of_the_server_names_the_variant(
    bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    copy = copy_bundle(bundle, tmp_path)
    with pytest.raises(ProofError, match="fp32, http: /v1/classify was not answered"):
        prove_bundle(copy, checkpoint, collection, serve=lambda *_: nullcontext(free_port()))


def _write(path: Path) -> None:
    add_report(read_bundle(path), {"fp32": {}})


def test_writing_keeps_all_else(bundle: Path, tmp_path: Path) -> None:
    copy = copy_bundle(bundle, tmp_path)
    _write(copy)
    assert read_bundle(copy).manifest == read_bundle(bundle).manifest | {"end_to_end": {"fp32": {}}}
    assert [path.name for path in copy.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("moment", [0, 1], ids=["before the old has gone", "before the new has come"])
def test_writing_that_is_interrupted_leaves_the_old(
    moment: int, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, moves, rename = copy_bundle(bundle, tmp_path), [], Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        moves.append(path)
        if len(moves) == moment + 1:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _write(copy)
    assert read_bundle(copy).sha256 == read_bundle(bundle).sha256
    assert [path.name for path in copy.parent.iterdir()] == ["1"]


def test_a_bundle_that_was_replaced_meanwhile_is_left_alone(
    bundle: Path, another: Path, tmp_path: Path
) -> None:
    copy = copy_bundle(bundle, tmp_path)
    opened = read_bundle(copy)
    shutil.rmtree(copy)
    shutil.copytree(another, copy)
    with pytest.raises(ProofError, match="replaced while it was being proven"):
        add_report(opened, {})
    assert read_bundle(copy).sha256 == read_bundle(another).sha256


def test_what_cannot_be_proven_is_said(
    bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    loaded = load_checkpoint(checkpoint)
    labels = [{"id": x, "label": x, "modalities": ["audio"]} for x in "abce"]
    save_checkpoint(tmp_path / "other", loaded.model, clip_spec=loaded.clip_spec, labels=labels)
    with pytest.raises(ValueError, match="has other labels than"):
        prove_bundle(bundle, tmp_path / "other", collection)
    with pytest.raises(ValueError, match="nothing can be read of the split 'val'"):
        prove_bundle(bundle, checkpoint, collection, split="val")
    shutil.copytree(collection, tmp_path / "strange")
    (tmp_path / "strange" / "manifest.csv").write_text(f"{ROWS[0]}\nsong.wav,audio,z,test,,\n")
    with pytest.raises(ValueError, match="labels that the model does not know: z"):
        prove_bundle(bundle, checkpoint, tmp_path / "strange")


def test_labels_of_collections_are_not_those_of_a_model_that_learned_from_teachers(
    checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    shutil.copytree(collection, tmp_path / "strange")
    (tmp_path / "strange" / "manifest.csv").write_text(f"{ROWS[0]}\nsong.wav,audio,z,test,,\n")
    taught = replace(load_checkpoint(checkpoint), extra={"recipe": {"distillation": {}}})
    (item,) = _items(tmp_path / "strange", "test", taught)
    assert (item.path.name, item.labels) == ("song.wav", ())


def test_an_unknown_variant_is_said(bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path) -> None:
    def rename(copy: Path) -> None:
        text = (
            (copy / "bundle.json")
            .read_text()
            .replace('"fp32": {', '"fp7": {')
            .replace('"*": "fp32"', '"*": "fp7"')
        )
        (copy / "bundle.json").write_text(text)

    with pytest.raises(ValueError, match=r"has the variants \['fp7'\], of which nothing is known"):
        prove_bundle(damaged_bundle(bundle, tmp_path, rename), checkpoint, collection)
