"""What TensorRT is told of each graph, and where it keeps its engines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export.tensorrt.keys import file_digests
from export.tensorrt.options import provider_options
from media import Modality
from runtime import Bundle, read_bundle
from runtime.engines import (
    EngineIngredients,
    EnginePlan,
    Engines,
    Profile,
    graph_folder,
    shapes_argument,
    stored_digests,
)
from runtime.errors import InvalidOption
from runtime.gpu import Gpu

TENSORRT, TENSORRT_RTX, CPU = (
    "TensorrtExecutionProvider",
    "NvTensorRTRTXExecutionProvider",
    "CPUExecutionProvider",
)
ADA = Gpu(name="NVIDIA RTX 4090", capability="8.9", cuda="13.0")
SHIPPED = [Path(__file__).parents[2] / "bundles" / name / "1" for name in ("everyday", "grid-words")]


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return read_bundle(bundle)


def plan(
    opened: Bundle, modality: Modality = Modality.FUSED, *, provider: str = TENSORRT, **changes: Any
) -> EnginePlan:
    engines = Engines(**({"max_batch_size": 8, "cache": Path("/engines"), "as_context": False} | changes))
    made = engines.plan(opened, opened.variants["fp32"], modality, providers=[provider, CPU], options={})
    assert made is not None
    return made


# Profiles


@pytest.mark.parametrize("batches", [(0, 8, 32), (9, 8, 32), (1, 33, 32)])
def test_a_profile_that_does_not_ascend_fails(batches: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="wanted 1 <= min <= opt <= max"):
        Profile(min=batches[0], opt=batches[1], max=batches[2])


def test_a_profile_may_be_one_batch() -> None:
    assert Profile(min=4, opt=4, max=4).batches == {"min": 4, "opt": 4, "max": 4}


def test_shapes_are_written_as_the_tools_read_them() -> None:
    shapes = {"audio": (512, 80), "video": (8, 112, 112, 3)}
    assert shapes_argument(shapes, 8) == "audio:8x512x80,video:8x8x112x112x3"


def test_the_profile_goes_from_one_window_to_the_largest_batch(opened: Bundle) -> None:
    made = plan(opened, max_batch_size=6)
    assert made.profile == Profile(min=1, opt=6, max=6)
    assert made.profile_options == {
        "trt_profile_min_shapes": "audio:1x64x32,video:1x2x32x32x3",
        "trt_profile_opt_shapes": "audio:6x64x32,video:6x2x32x32x3",
        "trt_profile_max_shapes": "audio:6x64x32,video:6x2x32x32x3",
    }


def test_each_graph_has_shapes_and_a_folder_of_its_own(opened: Bundle) -> None:
    plans = [plan(opened, modality) for modality in Modality]
    assert [sorted(made.shapes) for made in plans] == [["audio"], ["video"], ["audio", "video"]]
    assert len({made.folder for made in plans}) == 3
    assert {made.folder.parent for made in plans if made.folder} == {Path("/engines")}


def test_the_cache_of_engines_is_the_graphs_and_that_of_timings_everybodys(opened: Bundle) -> None:
    made = plan(opened)
    assert made.options == made.profile_options | {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(made.folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": "/engines",
    }
    rtx = plan(opened, provider=TENSORRT_RTX)
    assert rtx.options["nv_runtime_cache_path"] == str(rtx.folder)
    assert {name.partition("_")[0] for name in rtx.options} == {"nv"}


def test_without_a_cache_there_is_the_profile_alone(opened: Bundle) -> None:
    made = plan(opened, cache=None)
    assert made.folder is None
    assert made.options == made.profile_options


def test_other_providers_have_no_engines(opened: Bundle) -> None:
    engines = Engines()
    assert (engines.max_batch_size, engines.cache, engines.as_context) == (8, None, False)
    assert engines.plan(opened, opened.variants["fp32"], Modality.AUDIO, providers=[CPU], options={}) is None


def test_a_cache_stays_where_it_was_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engines = Engines(cache="engines")
    monkeypatch.chdir("/")
    assert engines.cache == tmp_path / "engines"


# Folders


def folder(**changes: Any) -> Path:
    wanted = {
        "provider": TENSORRT,
        "digests": {"audio.onnx": "00"},
        "variant": "fp32",
        "profile": Profile(),
        "gpu": ADA,
    }
    return graph_folder(Path("/engines"), "audio", EngineIngredients(**(wanted | changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": TENSORRT_RTX},
        {"digests": {"audio.onnx": "01"}},
        {"digests": {"audio.onnx": "00", "weights.bin": "02"}},
        {"variant": "fp16"},
        {"profile": Profile(max=64)},
        {"gpu": None},
        {"gpu": replace(ADA, name="NVIDIA L4")},
        {"options": {"trt_fp16_enable": "True"}},
    ],
    ids=str,
)
def test_the_folder_changes_with_each_ingredient(changes: dict[str, Any]) -> None:
    assert folder() == folder(options={"device_id": "1"})
    assert folder().parent == folder(**changes).parent
    assert folder().name != folder(**changes).name


def test_the_folder_changes_with_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder()
    monkeypatch.setattr("onnxruntime.__version__", "1.0.0")
    assert folder() != before


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_digests_are_those_of_the_files(path: Path) -> None:
    opened = read_bundle(path)
    for variant in opened.variants.values():
        for graph in variant.graphs.values():
            assert stored_digests(opened, graph) == file_digests(graph)


def test_a_command_that_builds_ahead_names_the_servers_folders(opened: Bundle, tmp_path: Path) -> None:
    made = plan(opened, cache=tmp_path)
    graph = opened.variants["fp32"].graphs[Modality.FUSED]
    assert provider_options(graph, made.profile, tmp_path, variant="fp32")[TENSORRT] == made.options


# What cannot be had


def check(providers: list[str], options: dict[str, dict[str, str]] | None = None, **changes: Any) -> None:
    wanted = {"max_batch_size": 8, "cache": Path("/engines"), "as_context": True} | changes
    Engines(**wanted).check(providers, options or {})


def test_engines_of_a_provider_that_builds_them_are_taken() -> None:
    check([TENSORRT, CPU], {TENSORRT: {"device_id": "1", "trt_builder_optimization_level": "3"}})
    check([TENSORRT_RTX], as_context=False)
    check([CPU], cache=None, as_context=False)


@pytest.mark.parametrize(
    ("providers", "options", "changes", "match"),
    [
        ([CPU], {}, {"as_context": False}, "engine cache '/engines'; ask for one of"),
        (
            [TENSORRT],
            {},
            {"cache": None},
            "engine context needs TensorrtExecutionProvider and an engine cache",
        ),
        ([TENSORRT_RTX], {}, {}, "engine context needs TensorrtExecutionProvider"),
        (
            [TENSORRT],
            {TENSORRT: {"trt_engine_cache_path": "/mine"}},
            {},
            r"have \['trt_engine_cache_path'\]; leave them",
        ),
        ([CPU], {}, {"max_batch_size": 0}, "max_batch_size=0; give at least 1"),
    ],
)
def test_engines_that_cannot_be_had_fail(
    providers: list[str], options: dict[str, dict[str, str]], changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidOption, match=match):
        check(providers, options, **changes)
