"""What ONNX Runtime is handed of engines, and that a fallback is taken only where it is allowed, and told.

TensorRT needs a GPU; here the CPU runs in its place, and writes as a context model the graph itself.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from media import Modality
from runtime import Engines, Zorro
from runtime.binding import OutputDevice
from runtime.errors import EngineCacheCorrupt, InvalidOption, ProviderUnavailable
from runtime.providers import check_provider_options

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
REAL = onnxruntime.InferenceSession


@dataclass
class TensorRT:
    """What sessions were asked for, and what this TensorRT does."""

    runs: bool = True
    takes_all: bool = True
    opened: list[tuple[str, dict[str, Any], bool]] = field(default_factory=list)

    def session(self, path: Path, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
        configured = dict(providers)
        self.opened.append((Path(path).name, configured, bool(enable_fallback)))
        target = configured.get(TENSORRT, {}).get("trt_ep_context_file_path")
        if self.runs and target is not None:
            self.write_context(Path(path), Path(target))
        if not self.runs and Path(path).stem.endswith("_ctx"):
            raise RuntimeError("Could not find an implementation for EPContext(1)")
        session = REAL(path, options, providers=[CPU])
        if self.runs and TENSORRT in configured:
            session._providers = [TENSORRT, CPU]
        return session

    def write_context(self, path: Path, target: Path) -> None:
        source = path if self.takes_all else path.with_name("video.onnx")
        shutil.copy(source, target)
        shutil.copy(path.with_name("weights.bin"), target.parent)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorRT]:
    made = TensorRT()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", made.session)
    monkeypatch.setattr("runtime.session.device_of", lambda provider, options: OutputDevice())
    yield made
    for _, configured, enable_fallback in made.opened:
        assert not (enable_fallback and "trt_ep_context_file_path" in configured.get(TENSORRT, {}))


def open_audio(
    bundle: Path,
    cache: Path | None,
    *,
    given: dict[str, Any] | None = None,
    as_context: bool = False,
    allow_fallback: bool = False,
) -> Zorro:
    """By TensorRT, with what an operator has given of options."""
    model = Zorro.open(
        bundle,
        providers=[TENSORRT if given is None else (TENSORRT, given)],
        engines=Engines(max_batch_size=2, cache=cache, as_context=as_context),
        allow_fallback=allow_fallback,
    )
    model.session(Modality.AUDIO)
    return model


# Engines


def test_a_session_gets_its_profile_and_a_folder_that_is_there(
    bundle: Path, tmp_path: Path, tensorrt: TensorRT
) -> None:
    open_audio(bundle, tmp_path / "engines")
    ((name, configured, enable_fallback),) = tensorrt.opened
    options = configured[TENSORRT]
    assert (name, enable_fallback) == ("audio.onnx", False)
    assert options["trt_profile_max_shapes"] == options["trt_profile_opt_shapes"] == "audio:2x64x32"
    assert options["trt_profile_min_shapes"] == "audio:1x64x32"
    assert Path(options["trt_engine_cache_path"]).is_dir()
    assert Path(options["trt_engine_cache_path"]).parent == tmp_path / "engines"


def test_what_an_operator_gives_goes_before_what_is_derived(bundle: Path, tensorrt: TensorRT) -> None:
    given = {"trt_profile_opt_shapes": "audio:1x64x32", "device_id": "1"}
    open_audio(bundle, None, given=given)
    ((_, configured, _),) = tensorrt.opened
    assert configured[TENSORRT] == given | {
        "trt_profile_min_shapes": "audio:1x64x32",
        "trt_profile_max_shapes": "audio:2x64x32",
    }


@pytest.mark.usefixtures("tensorrt")
def test_the_self_test_needs_no_batch_beyond_the_profile(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_audio(bundle, None)
    session, sizes = model.session(Modality.AUDIO), []
    run = session._run
    monkeypatch.setattr(session, "_run", lambda inputs: sizes.append(len(inputs["audio"])) or run(inputs))
    model.self_test()
    assert set(sizes) == {1, 2}


@pytest.mark.usefixtures("tensorrt")
def test_a_cache_that_cannot_be_made_fails(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file")
    with pytest.raises(InvalidOption, match="engine cache: .* cannot be written: .*; give another folder"):
        open_audio(bundle, tmp_path / "engines")


def test_a_device_that_is_no_number_fails(bundle: Path, tensorrt: TensorRT) -> None:
    with pytest.raises(InvalidOption, match="device_id='first'; give the number of a GPU"):
        open_audio(bundle, None, given={"device_id": "first"})


def test_a_device_of_another_provider_is_its_own_affair() -> None:
    check_provider_options(
        {"OpenVINOExecutionProvider": {"device_id": "GPU.1"}}, ["OpenVINOExecutionProvider"]
    )


# Context models


def test_a_context_is_written_once_and_opened_from_then_on(
    bundle: Path, tmp_path: Path, tensorrt: TensorRT
) -> None:
    first = open_audio(bundle, tmp_path, as_context=True)
    assert [name for name, _, _ in tensorrt.opened] == ["audio.onnx", "audio_ctx.onnx"]
    build, load = (configured[TENSORRT] for _, configured, _ in tensorrt.opened)
    assert build["trt_profile_max_shapes"] == "audio:2x64x32"
    assert "trt_engine_cache_path" not in build
    assert load == {}, "an engine has its profile in it"
    tensorrt.opened.clear()
    again = open_audio(bundle, tmp_path, as_context=True)
    assert [name for name, _, _ in tensorrt.opened] == ["audio_ctx.onnx"]
    inputs = {"audio": np.random.default_rng(0).normal(size=(2, 64, 32)).astype(np.float32)}
    for name, value in first.session(Modality.AUDIO).run(inputs).items():
        np.testing.assert_array_equal(value, again.session(Modality.AUDIO).run(inputs)[name])


def test_a_context_is_opened_as_it_is(bundle: Path, tmp_path: Path, tensorrt: TensorRT) -> None:
    session = open_audio(bundle, tmp_path, as_context=True).session(Modality.AUDIO)
    options = session._session.get_session_options()
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


@pytest.mark.parametrize("allow_fallback", [False, True])
def test_a_context_with_other_bytes_fails_always(
    bundle: Path, tmp_path: Path, tensorrt: TensorRT, allow_fallback: bool
) -> None:
    open_audio(bundle, tmp_path, as_context=True)
    (path,) = tmp_path.glob("audio-*/context/audio_ctx.onnx")
    path.write_bytes(path.read_bytes()[:-1])
    tensorrt.opened.clear()
    with pytest.raises(EngineCacheCorrupt, match="audio_ctx.onnx not as written; remove this folder"):
        open_audio(bundle, tmp_path, as_context=True, allow_fallback=allow_fallback)
    assert tensorrt.opened == [], "neither opened nor built anew"


def test_a_context_that_does_not_open_fails_and_is_not_built_anew(
    bundle: Path, tmp_path: Path, tensorrt: TensorRT
) -> None:
    open_audio(bundle, tmp_path, as_context=True)
    tensorrt.runs = False
    tensorrt.opened.clear()
    with pytest.raises(
        ProviderUnavailable, match=r"EPContext.*; if TensorRT has changed since, remove .*/context$"
    ):
        open_audio(bundle, tmp_path, as_context=True)
    assert [name for name, _, _ in tensorrt.opened] == ["audio_ctx.onnx"]


def test_a_context_of_a_part_of_the_graph_fails(bundle: Path, tmp_path: Path, tensorrt: TensorRT) -> None:
    tensorrt.takes_all = False
    with pytest.raises(
        ProviderUnavailable, match="takes only a part of the graph; switch the engine context off"
    ):
        open_audio(bundle, tmp_path, as_context=True)


def test_a_context_that_is_not_written_fails_where_no_fallback_is_allowed(
    bundle: Path, tmp_path: Path, tensorrt: TensorRT
) -> None:
    tensorrt.runs = False
    with pytest.raises(
        ProviderUnavailable, match=r"asked for TensorrtExecutionProvider, got \['CPUExecutionProvider'\]"
    ):
        open_audio(bundle, tmp_path, as_context=True)
    assert list(tmp_path.glob("*/context")) == []


@pytest.mark.parametrize("is_written", [False, True])
def test_a_context_that_does_not_run_falls_back_where_that_is_allowed_and_says_so(
    bundle: Path, tmp_path: Path, tensorrt: TensorRT, caplog: pytest.LogCaptureFixture, is_written: bool
) -> None:
    if is_written:
        open_audio(bundle, tmp_path, as_context=True)
    tensorrt.runs = False
    with caplog.at_level(logging.WARNING, logger="zorro.runtime"):
        model = open_audio(bundle, tmp_path, as_context=True, allow_fallback=True)
    assert model.providers == {"audio": [CPU]}
    assert any(line.startswith("audio.onnx: not on TensorrtExecutionProvider: ") for line in caplog.messages)
    assert f"audio.onnx: asked for ['{TENSORRT}'], runs on ['{CPU}']" in caplog.messages
    assert tensorrt.opened[-1][:2] == ("audio.onnx", {CPU: {}})


# This machine


def test_engines_of_a_provider_that_is_not_built_in_fail_at_once(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ProviderUnavailable, match=r"has no \['TensorrtExecutionProvider'\], .* allow a fallback"
    ):
        open_audio(bundle, tmp_path, as_context=True)


def test_engines_that_nobody_builds_are_left_out_where_a_fallback_is_allowed(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="zorro.runtime"):
        model = open_audio(bundle, tmp_path / "engines", as_context=True, allow_fallback=True)
    assert model.providers == {"audio": [CPU]}
    assert f"audio.onnx: asked for ['{TENSORRT}'], runs on ['{CPU}']" in caplog.messages
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize("allow_fallback", [False, True])
def test_a_run_never_changes_the_provider(bundle: Path, allow_fallback: bool) -> None:
    session = Zorro.open(bundle, allow_fallback=allow_fallback).session(Modality.AUDIO)
    assert not session._session._enable_fallback
