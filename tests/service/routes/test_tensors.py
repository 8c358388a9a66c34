"""Tensors by the Open Inference Protocol: the graphs' own answers, JSON or raw, and every way to get it
wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from media import Clip, ClipSpec, Modality
from runtime import Zorro
from service.app import create_app
from service.settings import Settings
from tests.service.ready_client import ready_client

INFER = "/v2/models/small/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def client(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("server")
    settings = Settings(
        bundles=bundle.parents[1], temporary_dir=folder, windows_dir=folder, max_body_bytes=300_000
    )
    with ready_client(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def tensors(spec: ClipSpec) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "audio": random.normal(-5, 3, (3, *spec.audio_shape)).astype(np.float32),
        "video": random.integers(0, 256, (3, *spec.video_shape), dtype=np.uint8),
    }


def _raw_input(name: str, tensor: np.ndarray) -> dict[str, Any]:
    datatype = "UINT8" if tensor.dtype == np.uint8 else "FP32"
    size = {"binary_data_size": tensor.nbytes}
    return {"name": name, "shape": list(tensor.shape), "datatype": datatype, "parameters": size}


def _ask(client: TestClient, inputs: dict[str, np.ndarray], **more: Any) -> httpx.Response:
    header = json.dumps({"inputs": [_raw_input(*item) for item in inputs.items()]} | more).encode()
    content = header + b"".join(tensor.tobytes() for tensor in inputs.values())
    return client.post(INFER, content=content, headers={LENGTH: str(len(header))})


def _outputs(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    header, raw, outputs = json.loads(answer.content[:length]), answer.content[length:], {}
    for x in header["outputs"]:
        if "data" in x:
            outputs[x["name"]] = np.array(x["data"], np.float32).reshape(x["shape"])
        else:
            size = x["parameters"]["binary_data_size"]
            outputs[x["name"]], raw = np.frombuffer(raw[:size], "<f4").reshape(x["shape"]), raw[size:]
    assert raw == b""
    return outputs


def _expected(bundle: Path, tensors: dict[str, np.ndarray], modality: Modality) -> dict[str, np.ndarray]:
    clips = [
        Clip(
            0,
            1,
            *(tensors[name][i] if name in tensors else None for name in ("audio", "video")),
            1,
            1,
            False,
            False,
        )
        for i in range(3)
    ]
    return Zorro.open(bundle).run(modality, clips)


@pytest.mark.slow
@pytest.mark.parametrize("is_raw", [True, False])
@pytest.mark.parametrize("names", [["audio"], ["video"], ["audio", "video"]])
def test_the_inputs_choose_the_graph_and_its_answers_come_back(
    names: list[str], is_raw: bool, client: TestClient, bundle: Path, tensors: dict[str, np.ndarray]
) -> None:
    given = {name: tensors[name] for name in names}
    got = _outputs(_ask(client, given, parameters={"binary_data_output": is_raw}))
    wanted = _expected(bundle, given, Modality.FUSED if len(names) == 2 else Modality(names[0]))
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5)


def test_json_tensors_get_the_same_answers(client: TestClient, tensors: dict[str, np.ndarray]) -> None:
    video = tensors["video"][:1]
    inputs = [
        {"name": "video", "shape": list(video.shape), "datatype": "UINT8", "data": video.reshape(-1).tolist()}
    ]
    outputs = [{"name": "video_logits"}]
    answer = client.post(INFER, json={"id": "mine", "inputs": inputs, "outputs": outputs})
    assert answer.json()["id"] == "mine"
    got = _outputs(answer)
    assert list(got) == ["video_logits"]
    np.testing.assert_allclose(
        got["video_logits"], _outputs(_ask(client, {"video": video}))["video_logits"], atol=1e-5
    )


def test_each_output_may_be_raw_or_not(client: TestClient, tensors: dict[str, np.ndarray]) -> None:
    outputs = [{"name": "audio_logits", "parameters": {"binary_data": True}}, {"name": "audio_embedding"}]
    answer = _ask(client, {"audio": tensors["audio"]}, outputs=outputs)
    header = json.loads(answer.content[: int(answer.headers[LENGTH])])
    assert ["data" in x for x in header["outputs"]] == [False, True]
    assert _outputs(answer)["audio_logits"].shape == (3, 4)


def test_metadata_says_what_goes_in_and_out(client: TestClient, spec: ClipSpec) -> None:
    about = client.get("/v2/models/small/versions/1").json()
    assert about["inputs"][1] == {"name": "video", "datatype": "UINT8", "shape": [-1, *spec.video_shape]}
    assert {"name": "fusion_logits", "datatype": "FP32", "shape": [-1, 4]} in about["outputs"]
    assert about == client.get("/v2/models/small").json()
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/small/ready").json() == {"ready": True}


@pytest.mark.parametrize("route", ["/v2/models/none", "/v2/models/small/versions/7", "/v2/models/none/ready"])
def test_a_model_that_is_not_there_is_a_404(route: str, client: TestClient) -> None:
    assert (client.get(route).status_code, client.get(route).json()["code"]) == (404, "unknown_model")


@pytest.mark.parametrize(
    ("content", "length", "said"),
    [
        (b"{", None, "does not parse"),
        (b"[]", None, "no list of inputs"),
        (b'{"inputs": {}}', None, "no list of inputs"),
        (b'{"inputs": []}', None, "give audio, video or both"),
        (b'{"inputs": []}', "99", "give the length"),
        (b'{"inputs": []}', "-1", "give the length"),
        (b'{"inputs": []}xx', "14", "2 bytes after the last tensor"),
        (b'{"inputs": [3]}', None, "is not as it should be"),
        (
            b'{"inputs": [{"name": "audio", "shape": [1], "datatype": "FP64", "data": [1]}]}',
            None,
            "FP32 or UINT8",
        ),
        (b'{"inputs": [{"name": "audio", "shape": [2], "datatype": "FP32", "data": [1]}]}', None, "reshape"),
        (b'{"inputs": [{"name": "audio", "shape": [-1], "datatype": "FP32", "data": [1]}]}', None, "shape"),
        (b'{"inputs": [{"name": "audio", "shape": [1], "datatype": "FP32"}]}', None, "data"),
        (
            b'{"inputs": [{"name": "audio", "shape": [1], "datatype": "FP32", "data": [1]}]}',
            None,
            r"windows, 64, 32",
        ),
        (
            b'{"inputs": [{"name": "audio", "shape": [9], "datatype": "FP32", '
            b'"parameters": {"binary_data_size": 36}}]}',
            "101",
            "0 bytes are left",
        ),
        (
            b'{"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [1]}]}',
            None,
            r"\['text'\]",
        ),
    ],
)
def test_what_is_no_request_is_told_why(
    content: bytes, length: str | None, said: str, client: TestClient
) -> None:
    headers = {} if length is None else {LENGTH: str(len(content)) if length == "101" else length}
    answer = client.post(INFER, content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_tensors")
    assert said.replace("\\", "") in answer.json()["detail"]


def test_tensors_that_do_not_fit_together_are_refused(
    client: TestClient, tensors: dict[str, np.ndarray]
) -> None:
    audio, video = tensors["audio"], tensors["video"]
    for given, said in (
        ({"audio": audio, "video": video[:2]}, "[3, 2] windows"),
        ({"audio": audio[:0]}, "[0] windows"),
        ({"audio": audio[:, :3]}, "audio is FP32[3, 3, 32]"),
        ({"audio": video}, "audio is UINT8"),
    ):
        answer = _ask(client, given)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_tensors")
        assert said in answer.json()["detail"]
    twice = [_raw_input("audio", audio[:1])] * 2
    header = json.dumps({"inputs": twice}).encode()
    answer = client.post(INFER, content=header + audio[:2].tobytes(), headers={LENGTH: str(len(header))})
    assert "given twice" in answer.json()["detail"]


def test_an_output_that_is_not_there_is_refused(client: TestClient, tensors: dict[str, np.ndarray]) -> None:
    answer = _ask(client, {"audio": tensors["audio"]}, outputs=[{"name": "video_logits"}])
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_tensors")


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    answer = client.post(INFER, content=bytes(300_001))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
