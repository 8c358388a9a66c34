"""Context models: kept whole with their sums, opened only as they were written."""

from pathlib import Path

import pytest

from runtime.engine_context import SUMS_FILE, EngineContext
from runtime.errors import EngineCacheCorrupt, ProviderUnavailable

CONTENT = {"audio_ctx.onnx": b"a graph of one node", "kernel.engine": b"an engine"}


def build(options: dict[str, str]) -> None:
    """Write what ONNX Runtime does by these options."""
    path = Path(options["trt_ep_context_file_path"])
    for name, content in CONTENT.items():
        (path.parent / name).write_bytes(content)


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    made = EngineContext(tmp_path, "audio")
    made.write(build)
    return made


def test_what_was_written_is_kept_with_its_sums(context: EngineContext, tmp_path: Path) -> None:
    assert context.is_written
    assert context.path == tmp_path / "context" / "audio_ctx.onnx"
    assert sorted(path.name for path in context.folder.iterdir()) == [SUMS_FILE, *sorted(CONTENT)]
    assert [
        line.partition("  ")[2] for line in (context.folder / SUMS_FILE).read_text().splitlines()
    ] == sorted(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["context"]
    context.verify()


def test_the_options_keep_the_engine_beside_its_model_and_timings_with_all(tmp_path: Path) -> None:
    given: list[dict[str, str]] = []

    def seen(options: dict[str, str]) -> None:
        given.append(options)
        build(options)

    EngineContext(tmp_path, "audio").write(seen)
    (options,) = given
    assert Path(options.pop("trt_ep_context_file_path")).name == "audio_ctx.onnx"
    assert options == {
        "trt_dump_ep_context_model": "True",
        "trt_ep_context_embed_mode": "0",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(tmp_path.parent),
    }


def test_a_build_that_writes_nothing_fails_and_leaves_nothing(tmp_path: Path) -> None:
    made = EngineContext(tmp_path, "audio")
    with pytest.raises(
        ProviderUnavailable, match="wrote no audio_ctx.onnx: TensorRT takes only a part of the graph"
    ):
        made.write(lambda options: None)
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(options: dict[str, str]) -> None:
        build(options)
        raise ProviderUnavailable("out of memory")

    made = EngineContext(tmp_path, "audio")
    with pytest.raises(ProviderUnavailable, match="out of memory"):
        made.write(broken)
    assert not made.is_written
    assert list(tmp_path.iterdir()) == []


def test_the_context_of_a_server_that_was_quicker_stays(context: EngineContext) -> None:
    before = (context.folder / SUMS_FILE).stat().st_ino
    context.write(build)
    assert (context.folder / SUMS_FILE).stat().st_ino == before
    context.verify()


@pytest.mark.parametrize("name", [*CONTENT, SUMS_FILE])
@pytest.mark.parametrize("damage", ["a bit", "a half", "all"])
def test_a_context_that_is_not_as_written_fails(context: EngineContext, name: str, damage: str) -> None:
    path = context.folder / name
    content = path.read_bytes()
    match damage:
        case "a bit":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        case "a half":
            path.write_bytes(content[: len(content) // 2])
        case "all":
            path.unlink()
    with pytest.raises(EngineCacheCorrupt, match=r"context: .*; remove this folder"):
        context.verify()


def test_sums_that_leave_the_model_out_fail(context: EngineContext) -> None:
    (context.folder / SUMS_FILE).write_text("")
    with pytest.raises(EngineCacheCorrupt, match="audio_ctx.onnx, kernel.engine not as written"):
        context.verify()


def test_a_file_that_nobody_wrote_fails(context: EngineContext) -> None:
    (context.folder / "other.engine").write_bytes(b"from elsewhere")
    with pytest.raises(EngineCacheCorrupt, match="other.engine not as written"):
        context.verify()
