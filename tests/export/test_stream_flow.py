"""Streams and the edges between them: counted by hand, checked against the proof of purity at random, and
drawn."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.purity import MAY_READ, reached_inputs
from export.stream_flow import Flow, flow_lines, trace_flow
from export.stream_flow_svg import draw_flow
from tests.export.test_inspection import of_bundle
from tests.export.test_leaks import of_shape, of_values, plant

SVG = "{http://www.w3.org/2000/svg}"


def save(
    path: Path, nodes: dict[str, str], *, inputs: Iterable[str] = ("audio", "video"), weights: str = ""
) -> Path:
    """Write a graph of nodes by output, each with the names that it reads.

    Outputs are those that name an answer.
    """

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])

    graph = helper.make_graph(
        [helper.make_node("Sum", reads.split(), [name], name=name) for name, reads in nodes.items()],
        "made",
        [value(name) for name in inputs],
        [value(name) for name in nodes if name.endswith(("_logits", "_embedding"))],
        [helper.make_tensor(name, TensorProto.FLOAT, [4], [0.0] * 4) for name in weights.split()],
    )
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


PURE = {
    "a": "audio", "a2": "a w", "v": "video", "w2": "w", "v2": "v w2", "f": "a v", "f2": "f a2 v2",
    "audio_logits": "a2", "video_logits": "v2", "fusion_logits": "f2 a2",
}  # fmt: skip


def test_groups_and_edges(tmp_path: Path) -> None:
    flow = trace_flow(save(tmp_path / "pure.onnx", PURE, weights="w"))
    assert flow == Flow(
        inputs={"audio": "batch\N{MULTIPLICATION SIGN}4", "video": "batch\N{MULTIPLICATION SIGN}4"},
        nodes={"audio": 3, "video": 3, "fusion": 3, "constant": 1},
        edges={
            ("audio", "audio"): 3,
            ("video", "video"): 3,
            ("fusion", "fusion"): 2,
            ("audio", "fusion"): 3,
            ("video", "fusion"): 2,
            ("constant", "video"): 1,
        },
        outputs={"audio_logits": "audio", "video_logits": "video", "fusion_logits": "fusion"},
    )
    assert flow.leaks == {}


@pytest.mark.parametrize(
    ("changed", "leaks"),
    [
        ({"audio_logits": "a2 v"}, {("video", "audio"): 1}),
        ({"audio_logits": "a2 video"}, {("video", "audio"): 1}),
        ({"audio_logits": "a2 v2 v2 video"}, {("video", "audio"): 3}),
        ({"video_logits": "v2 f2"}, {("fusion", "video"): 1}),
        ({"video_logits": "v2 a", "audio_logits": "a2 f"}, {("audio", "video"): 1, ("fusion", "audio"): 1}),
        (
            {"a2": "a video"},
            {("fusion", "audio"): 1},
        ),  # a2 is read by fusion too: what both streams read is fusion's
        ({"audio_logits": "v2"}, {}),
        ({"fusion_logits": "a2"}, {}),
        ({"video_logits": "w2"}, {}),
    ],
)
def test_leaks(changed: dict, leaks: dict, tmp_path: Path) -> None:
    flow = trace_flow(save(tmp_path / "leaky.onnx", PURE | changed, weights="w"))
    wrong = {"v2": ("video", "audio"), "a2": ("audio", "fusion"), "w2": ("constant", "video")}
    assert flow.leaks == (
        leaks or {wrong[next(iter(changed.values()))]: 1}
    )  # or an output is made by another stream


def random_graph(path: Path, seed: int) -> Path:
    """Three nodes of each stream that read what they may, or now and then anything, and an answer of each."""
    random = np.random.default_rng(seed)
    nodes: dict[str, str] = {}
    reach = {"audio": ["audio"], "video": ["video"], "fusion": ["audio", "video"]}
    for i in range(12):
        stream = ("audio", "video", "fusion")[i % 3]
        may = [*reach["fusion"], *nodes] if random.random() < 0.07 else reach[stream]
        name = f"{stream}_logits" if i >= 9 else f"{stream}{i}"
        nodes[name] = " ".join(random.choice(may, size=random.integers(1, 4)))
        for reader in {stream, "fusion"}:
            reach[reader].append(name)
    return save(path, nodes)


def test_there_are_leaks_where_there_is_no_proof(tmp_path: Path) -> None:
    """The picture says what following edges from the inputs says, of graphs with and without leaks."""
    found = {True: 0, False: 0}
    for seed in range(300):
        path = random_graph(tmp_path / "random.onnx", seed)
        reads = reached_inputs(onnx.load(path).graph)
        proven = all(sources == MAY_READ[name.split("_")[0]] for name, sources in reads.items())
        assert (trace_flow(path).leaks == {}) == proven, seed
        found[proven] += 1
    assert min(found.values()) > 50


def test_a_real_graph(bundle: Path) -> None:
    path = of_bundle(bundle, "fused")
    flow = trace_flow(path)
    assert flow.leaks == {}
    assert flow.outputs == {
        f"{stream}_{answer}": stream for stream in MAY_READ for answer in ("features", "embedding", "logits")
    }
    assert sum(flow.nodes.values()) == len(onnx.load(path, load_external_data=False).graph.node)
    assert flow.edges["audio", "fusion"] > 0 < flow.edges["video", "fusion"]
    alone = trace_flow(of_bundle(bundle, "audio"))
    assert (alone.streams, set(alone.nodes) - {"constant"}) == (("audio",), {"audio"})


@pytest.mark.parametrize("leak", [of_values, of_shape])
@pytest.mark.parametrize(("output", "source"), [("audio_logits", "video"), ("video_embedding", "audio")])
def test_a_leak_planted_in_a_real_graph(leak, output: str, source: str, bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(of_bundle(bundle, "fused"), tmp_path))
    plant(path, output, leak(source))
    flow = trace_flow(path)
    target = output.split("_")[0]
    assert flow.leaks == {(source, target): 1}
    assert _arrows(draw_flow(flow), "leak") == ["1"]
    assert flow_lines(flow)[-1] == f"not pure: {source} → {target} 1"


def _arrows(picture: str, kind: str) -> list[str]:
    """Counts written at arrows of this kind."""
    texts = ElementTree.fromstring(picture).iter(f"{SVG}text")
    return sorted(x.text or "" for x in texts if x.get("class") == f"count {kind}")


def test_picture_of_a_pure_graph(tmp_path: Path) -> None:
    flow = trace_flow(save(tmp_path / "pure.onnx", PURE, weights="w"))
    root = ElementTree.fromstring(draw_flow(flow))
    assert _arrows(draw_flow(flow), "none") == ["0"] * 4
    assert _arrows(draw_flow(flow), "leak") == []
    assert (_arrows(draw_flow(flow), "audio"), _arrows(draw_flow(flow), "video")) == (["3"], ["2"])
    lines = list(root.iter(f"{SVG}line"))
    dashed = [x for x in lines if x.get("stroke-dasharray")]
    assert [x.get("class") for x in dashed] == ["none"] * 4
    assert len(lines) == 2 + 6 + 3  # from inputs, between streams, to outputs
    assert len(list(root.iter(f"{SVG}rect"))) == 1 + 2 + 3 + 3
    texts = [x.text for x in root.iter(f"{SVG}text")]
    assert {"audio", "batch\N{MULTIPLICATION SIGN}4", "3 nodes", "2 edges within", "video_logits"} <= set(
        texts
    )
    assert texts[-1] == "pure: nothing of another stream enters audio or video"


def test_picture_of_a_leak(tmp_path: Path) -> None:
    changed = {"audio_logits": "a2 v2 v2", "fusion_logits": "a2"}
    picture = draw_flow(trace_flow(save(tmp_path / "leaky.onnx", PURE | changed, weights="w")))
    assert _arrows(picture, "leak") == ["1", "2"]  # to the audio stream, and from it to an answer of fusion's
    assert "not pure: 3 edges that should not be" in picture


def test_an_arrow_is_as_wide_as_its_edges_are_many(tmp_path: Path) -> None:
    def width(reads: str) -> float:
        flow = trace_flow(save(tmp_path / "g.onnx", PURE | {"f": reads}, weights="w"))
        lines = ElementTree.fromstring(draw_flow(flow)).iter(f"{SVG}line")
        return next(
            float(x.get("stroke-width"))
            for x in lines
            if x.get("class") == "audio" and x.get("x1") == x.get("x2")
        )

    assert width("v a") < width("v a a a a") < width("v" + 50 * " a") < 12


def test_everything_drawn_is_inside_the_picture(tmp_path: Path) -> None:
    root = ElementTree.fromstring(draw_flow(trace_flow(save(tmp_path / "pure.onnx", PURE, weights="w"))))
    width, height = float(root.get("width")), float(root.get("height"))
    assert (width, 350 < height < 450) == (720, True)
    for x in root.iter(f"{SVG}rect"):
        left, top = float(x.get("x", 0)), float(x.get("y", 0))
        assert 0 <= left < left + float(x.get("width")) <= width
        assert 0 <= top < top + float(x.get("height")) <= height
    for x in root.iter(f"{SVG}text"):
        assert 0 < float(x.get("y")) < height
    assert all(
        colour in root.find(f"{SVG}style").text for colour in ("prefers-color-scheme: dark", "--paper")
    )


def test_names_are_escaped(tmp_path: Path) -> None:
    path = save(tmp_path / "odd.onnx", {"audio_<&>_logits": "audio"}, inputs=["audio"])
    assert "audio_<&>_logits" in [
        x.text for x in ElementTree.fromstring(draw_flow(trace_flow(path))).iter(f"{SVG}text")
    ]


def test_table_for_terminals(tmp_path: Path) -> None:
    rows = [line.split() for line in flow_lines(trace_flow(save(tmp_path / "pure.onnx", PURE, weights="w")))]
    assert rows[:-1] == [
        ["reads", "edges", "of", "audio", "fusion", "video", "constant", "nodes", "outputs"],
        ["audio", "3", "0", "0", "0", "3", "1"],
        ["fusion", "3", "2", "2", "0", "3", "1"],
        ["video", "0", "0", "3", "1", "3", "1"],
        ["constant", "0", "0", "0", "0", "1", "0"],
    ]
    lines = flow_lines(
        trace_flow(save(tmp_path / "leaky.onnx", PURE | {"audio_logits": "a2 v"}, weights="w"))
    )
    assert lines[1].split() == ["audio", "3", "0", "LEAK", "1", "0", "3", "1"]
    assert len({len(line) for line in lines[:-1]}) == 1


def test_json(tmp_path: Path) -> None:
    leaky = PURE | {"audio_logits": "a2 v"}
    told = json.loads(json.dumps(trace_flow(save(tmp_path / "leaky.onnx", leaky, weights="w")).to_dict()))
    assert told["edges"]["audio"] == {"audio": 3, "fusion": 3}
    assert told["leaks"] == {"video": {"audio": 1}}
    assert told["nodes"]["constant"] == 1


def test_graphs_of_others_fail(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"g\.onnx has inputs \['audio', 'depth'\], wanted audio, video or both"
    ):
        trace_flow(save(tmp_path / "g.onnx", {"audio_logits": "audio depth"}, inputs=["audio", "depth"]))
    with pytest.raises(
        ValueError, match="output 'text_logits' names no stream; wanted audio_, fusion_ or video_"
    ):
        trace_flow(save(tmp_path / "g.onnx", {"text_logits": "audio"}))
