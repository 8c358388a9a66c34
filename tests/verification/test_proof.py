"""`zorro bundle prove`: a good bundle passes and says so; damaged ones, sealed as if they were good, do not.

Most damage is done to graphs and is looked for without a server; one bundle is served in the place of
another.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

import verification.proof as proof
from cli.main import app
from datasets.manifests import Item
from export.bundle_graphs import write_golden
from export.bundle_writer import seal_bundle
from export.variants import TOLERANCES
from media import ClipSpec, Modality, probe
from models.weights import load_checkpoint, save_checkpoint
from runtime import Zorro, read_bundle
from tests.made_media import jpeg_bytes, moving_frames, tone, write_clip
from tests.tiny_bundle import graphs_in
from verification.proof import (
    Answer,
    ProofError,
    ServerFault,
    Tally,
    check_served,
    limits_of,
    make_asks,
    prove_bundle,
    serve_bundle,
)

Damage = Callable[[Path], None]

ROWS = (
    "path,modality,label,split,start_seconds,end_seconds",
    "film.mp4,both,a,test,,",  # 2 s: three windows of 0.64 s, and what is left is too short to count
    "film.mp4,both,b,test,0.5,0.7",  # one window around it
    "film.mp4,both,b,train,0.5,0.7",
    "song.wav,audio,c,test,,",  # 1 s: two windows
    "mute.mp4,both,d,test,,",  # 1 s: two windows
    "still.jpg,image,,test,,",
    "broken.mp4,both,a,test,,",
)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films, a sound, pictures, and a file that is none; with and without labels and spans."""
    folder = tmp_path_factory.mktemp("collection")
    write_clip(folder / "film.mp4", waveform=tone(2.0), frames=moving_frames(2.0, size=(32, 32)))
    write_clip(folder / "song.wav", waveform=tone(1.0, hz=900))
    write_clip(folder / "mute.mp4", frames=moving_frames(1.0, size=(32, 32)))
    (folder / "still.jpg").write_bytes(jpeg_bytes(moving_frames(0.04)[0]))
    (folder / "broken.mp4").write_bytes(b"nothing of a film")
    (folder / "manifest.csv").write_text("\n".join(ROWS) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _few_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a decode process of the server's, which takes a while to start."""
    monkeypatch.setattr(proof, "NUM_CLIENTS", 2)


def _copy(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / "small" / "1"))


def _damaged(bundle: Path, folder: Path, damage: Damage) -> Path:
    """A copy that is damaged, and sealed as if it were good."""
    copy = _copy(bundle, folder)
    damage(copy)
    seal_bundle(copy, json.loads((copy / "bundle.json").read_text()))
    return copy


def _edit(copy: Path, graph: str, change: Callable[[onnx.GraphProto], None]) -> None:
    path = copy / "fp32" / f"{graph}.onnx"
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def _set(copy: Path, graph: str, end: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the one initialiser whose name ends so."""

    def edit(content: onnx.GraphProto) -> None:
        (tensor,) = [x for x in content.initializer if x.name.endswith(end)]
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))

    _edit(copy, graph, edit)


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

    _edit(copy, "fused", swap)


def _shift_mean(copy: Path) -> None:
    _set(copy, "audio", "audio_tokens.mean", lambda mean: mean + np.float32(2))


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

    _edit(copy, "audio", plant)


def _change_layer(copy: Path) -> None:
    _set(copy, "video", "blocks.1.mlp.2.weight.T", lambda weight: weight * np.float32(1.5))


def _exchange_labels(copy: Path) -> None:
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["labels"].reverse()
    (copy / "bundle.json").write_text(json.dumps(manifest))


def _break_numbers(copy: Path) -> None:
    _set(copy, "audio", "audio_tokens.mean", lambda mean: mean * np.float32(np.nan))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_swap_streams, r"fp32, graph, fused\.(audio|video): max_score_error is .*, the limit is 5e-05"),
        (_shift_mean, "fp32, graph, audio: max_score_error is"),
        (_transpose_mel, "fp32, graph, audio: max_score_error is"),
        (_change_layer, "fp32, graph, video: max_score_error is"),
        (_exchange_labels, "fp32, graph, audio: max_score_error is"),
        (_break_numbers, "fp32, graph, audio: max_score_error is inf"),
    ],
    ids=lambda x: getattr(x, "__name__", "").strip("_"),
)
def test_damage_is_found(
    damage: Damage, said: str, bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    copy = _damaged(bundle, tmp_path, damage)
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


@pytest.mark.parametrize("said", [{"scores": "softmax"}, {}], ids=["otherwise", "not at all"])
def test_a_bundle_that_lets_them_compete_is_found(
    said: dict[str, str], sigmoid_bundle: Path, sigmoid_checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    copy = _copy(sigmoid_bundle, tmp_path)
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
    copy = _copy(bundle, tmp_path_factory.mktemp("proven"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "NUM_CLIENTS", 2)
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
            collection / name, modalities="audio", top_k=1, start_seconds=start, end_seconds=end
        )
        hits.append(result.whole["audio"].labels[0].id == label)
    figures = read_bundle(proven).manifest["end_to_end"]["fp32"]["http"]["audio"]
    assert figures["top1"] == figures["top1_wanted"] == sum(hits) / 3
    assert figures["top1_points"] == 0


@pytest.fixture(scope="module")
def another(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is sound in itself, its golden answers too, and not the one that was exported."""

    def damage(copy: Path) -> None:
        _change_layer(copy)
        write_golden(copy, read_bundle(bundle).clip_spec, graphs_in(copy / "fp32"))

    return _damaged(bundle, tmp_path_factory.mktemp("another"), damage)


@pytest.fixture(scope="module")
def other_port(another: Path) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "NUM_CLIENTS", 2)
        with serve_bundle(read_bundle(another), "fp32") as port:
            yield port


def test_a_server_of_another_bundle_is_found_by_its_answers(
    other_port: int, bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    copy = _copy(bundle, tmp_path)
    with pytest.raises(ProofError, match="fp32, http, video: max_score_error is .*, the limit is 5e-05"):
        prove_bundle(copy, checkpoint, collection, serve=lambda *_: nullcontext(other_port))
    assert (copy / "bundle.sha256").read_bytes() == (bundle / "bundle.sha256").read_bytes()


def test_a_server_of_another_bundle_is_found_by_its_hash(
    other_port: int, bundle: Path, another: Path
) -> None:
    check_served(other_port, read_bundle(another), "fp32")
    with pytest.raises(ServerFault, match="and not fp32 of"):
        check_served(other_port, read_bundle(bundle), "fp32")
    with pytest.raises(ServerFault, match="and not fp16 of"):
        check_served(other_port, read_bundle(another), "fp16")


def test_a_refused_question_is_told(other_port: int, bundle: Path) -> None:
    with pytest.raises(ServerFault, match="/v1/nothing was answered with status 404"):
        proof._request(other_port, "/v1/nothing")
    with pytest.raises(ServerFault, match="/readyz was not answered"):
        proof._request(proof._free_port(), "/readyz")


def test_a_server_that_does_not_load_it_is_told_and_ended(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its self-test does not pass; nobody waits in vain."""
    servers, stop = [], proof._stop
    monkeypatch.setattr(proof, "_stop", lambda server: (servers.append(server), stop(server)))
    copy = read_bundle(_damaged(bundle, tmp_path, _change_layer))
    with (
        pytest.raises(ServerFault, match="the models could not be loaded: .*video"),
        serve_bundle(copy, "fp32"),
    ):
        pass
    assert [server.poll() for server in servers] == [0]


def test_a_server_that_ends_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "NUM_CLIENTS", 0)  # decode processes: no setting that it takes
    with (
        pytest.raises(ServerFault, match="(?s)ended with status 1 before it was ready: .*num_decode_workers"),
        serve_bundle(read_bundle(bundle), "fp32"),
    ):
        pass


def test_a_server_that_is_not_ready_in_time_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "READY_SECONDS", 0.0)
    with pytest.raises(ServerFault, match="not ready within 0 s"), serve_bundle(read_bundle(bundle), "fp32"):
        pass


def test_a_fault_of_the_server_names_the_variant(
    bundle: Path, checkpoint: Path, collection: Path, tmp_path: Path
) -> None:
    copy = _copy(bundle, tmp_path)
    with pytest.raises(ProofError, match="fp32, http: /v1/classify was not answered"):
        prove_bundle(copy, checkpoint, collection, serve=lambda *_: nullcontext(proof._free_port()))


def _write(path: Path) -> None:
    proof._write(read_bundle(path), {"fp32": {}})


def test_writing_keeps_all_else(bundle: Path, tmp_path: Path) -> None:
    copy = _copy(bundle, tmp_path)
    _write(copy)
    assert read_bundle(copy).manifest == read_bundle(bundle).manifest | {"end_to_end": {"fp32": {}}}
    assert [path.name for path in copy.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("moment", [0, 1], ids=["before the old has gone", "before the new has come"])
def test_writing_that_is_interrupted_leaves_the_old(
    moment: int, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, moves, rename = _copy(bundle, tmp_path), [], Path.rename

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
    copy = _copy(bundle, tmp_path)
    opened = read_bundle(copy)
    shutil.rmtree(copy)
    shutil.copytree(another, copy)
    with pytest.raises(ProofError, match="replaced while it was being proven"):
        proof._write(opened, {})
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
        prove_bundle(_damaged(bundle, tmp_path, rename), checkpoint, collection)


def _answer(*rows: Sequence[float], vector: Sequence[float] = (1.0, 0.0)) -> Answer:
    return Answer(np.array(rows), np.array([vector] * len(rows)))


def test_tally_by_hand() -> None:
    tally = Tally()
    tally.add(
        _answer([0.6, 0.4], [0.6, 0.4], vector=(0.6, 0.8)),
        _answer([0.7, 0.3], [0.5, 0.5], vector=(0.8, 0.6)),
        {0},
    )
    tally.add(_answer([0.4, 0.6], [0.4, 0.6]), _answer([0.51, 0.49], [0.4, 0.6]), {0})
    assert tally.figures() == pytest.approx(
        {
            "clips": 2,
            "windows": 2,
            "max_score_error": 0.11,
            "max_embedding_error": 0.2,
            "min_cosine": 0.96,
            "top1_agreement": 0.5,
            "top1": 0.5,
            "top1_wanted": 1.0,
            "top1_points": 50.0,
        }
    )


def test_tally_of_clips_without_labels_has_no_accuracy() -> None:
    tally = Tally()
    tally.add(_answer([1.0, 0.0]), _answer([1.0, 0.0]), set())
    assert not any(name in tally.figures() for name in ("top1", "top1_wanted", "top1_points"))
    assert tally.excess(limits_of("fp32")) is None


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (_answer([np.nan, np.nan]), "max_score_error is inf"),
        (_answer([0.9, 0.1], vector=(np.nan, 0.0)), "min_cosine is -1"),
        (_answer([0.9, 0.1], vector=(0.9, 0.43589)), "min_cosine is 0.9"),
        (_answer([0.8, 0.2]), "max_score_error is 0.1"),
    ],
)
def test_excess_is_told(got: Answer, said: str) -> None:
    tally = Tally()
    tally.add(got, _answer([0.9, 0.1]), {0})
    assert said in str(tally.excess(limits_of("fp16")))


@pytest.mark.parametrize(
    ("clips", "lost", "fits"), [(3, 1, True), (3, 2, False), (400, 2, True), (400, 3, False)]
)
def test_one_clip_or_half_a_point_of_accuracy_may_be_lost(clips: int, lost: int, fits: bool) -> None:
    tally = Tally(clips=clips, num_agreements=clips, hits=[(i >= lost, True) for i in range(clips)])
    assert (tally.excess({"top1_points": proof.MAX_POINTS}) is None) == fits


def test_disagreement_is_told() -> None:
    tally = Tally(clips=100, num_agreements=98)
    assert tally.excess(limits_of("int8-cpu")) is None
    assert tally.excess(limits_of("fp16")) == "top1_agreement is 0.98, the limit is 0.99"


def test_scores_move_by_at_most_half_of_what_logits_do() -> None:
    """The reason for the limit of scores; two labels, far apart from all others, come close to it."""
    random = np.random.default_rng(0)
    logits, moved = random.normal(size=(2000, 2)) * 0.1, random.choice([-0.05, 0.05], size=(2000, 2))
    before, after = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (logits, logits + moved))
    worst = np.abs(after - before).max()
    assert 0.9 * 0.025 < worst <= 0.025 == limits_of("fp16")["max_score_error"]


def test_limits_are_those_of_export() -> None:
    for name, tolerance in TOLERANCES.items():
        limits = limits_of(name)
        assert (limits["min_cosine"], limits["top1_agreement"]) == (
            tolerance.min_cosine,
            tolerance.min_top1_agreement,
        )
    assert limits_of("fp32")["max_score_error"] == 5e-5
    assert limits_of("int8-qdq")["max_score_error"] == proof.MAX_SCORE_ERROR


def test_the_same_graph_is_held_to_less() -> None:
    assert set(proof.same_graph_limits("fp32").values()) == {1e-5}
    limits = proof.same_graph_limits("fp16")
    assert limits["max_score_error"] == pytest.approx(0.0025)
    angle = np.arccos(0.9999)
    assert limits["max_embedding_error"] == pytest.approx(0.1 * np.hypot(1 - np.cos(angle), np.sin(angle)))


def _asks(path: Path, modality: str, spec: ClipSpec, **span: Any) -> list[tuple[Any, ...]]:
    item = Item(path, modality, ("a",), "test", **span)
    return [
        (tuple(map(str, x.modalities)), x.start_seconds, x.end_seconds)
        for x in make_asks(item, probe(path), spec)
    ]


def test_what_is_asked(collection: Path, spec: ClipSpec) -> None:
    everything, film = ("audio", "video", "fused"), collection / "film.mp4"
    assert _asks(film, "both", spec) == [(x, 0.0, None) for x in (everything, ("audio",), ("video",))]
    assert _asks(film, "audio", spec) == [(("audio",), 0.0, None)], (
        "what its list does not speak of is not asked"
    )
    assert _asks(collection / "mute.mp4", "both", spec) == [(("video",), 0.0, None)]
    assert _asks(film, "video", spec, start_seconds=0.5, end_seconds=1.5) == [(("video",), 0.5, 1.5)]
    ((_, start, end),) = _asks(film, "video", spec, start_seconds=0.5, end_seconds=0.7)
    assert (start, end) == (pytest.approx(0.6 - 0.32), pytest.approx(0.6 + 0.32)), (
        "a window around the middle of the span"
    )
    ((_, start, end),) = _asks(film, "video", spec, start_seconds=0.0, end_seconds=0.2)
    assert (start, end) == (0.0, pytest.approx(0.64))


def test_what_has_nothing_to_ask_fails(collection: Path, spec: ClipSpec) -> None:
    from media.errors import MissingAudio

    with pytest.raises(MissingAudio, match="no sound"):
        _asks(collection / "mute.mp4", "audio", spec)


def test_streams_are_named_by_their_graph(collection: Path, spec: ClipSpec) -> None:
    path = collection / "film.mp4"
    together, sound, _ = make_asks(Item(path, "both", (), "test"), probe(path), spec)
    assert [together.stream(modality) for modality in Modality] == ["fused.audio", "fused.video", "fused"]
    assert sound.stream(Modality.AUDIO) == "audio"
