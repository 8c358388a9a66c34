"""Bundles opened, verified, asked, and refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.bundle_writer import seal_bundle
from media import Modality, read_clips
from media.errors import InvalidSpan, MissingAudio, MissingVideo
from media.pooling import pool, window_weights
from runtime import Space, TimeRange, Zorro, find_bundles
from runtime.bundle import read_sealed
from runtime.errors import (
    BundleCorrupt,
    BundleIncompatible,
    BundleNotFound,
    InvalidOption,
    ProviderUnavailable,
    SelfTestFailed,
)
from runtime.result_assembly import OutputRequest, ResultBuilder
from tests.made_media import tone, write_clip


@pytest.fixture(scope="module")
def model(bundle: Path) -> Zorro:
    return Zorro.open(bundle)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_a_film_is_answered_by_all_streams_in_every_window(model: Zorro, film: Path) -> None:
    result = model.classify(film, top_k=2)
    assert len(result.windows) == 3
    assert result.absent == ()
    for window in result.windows:
        assert list(window.streams) == ["audio", "video", "fused"]
        for stream in window.streams.values():
            scores = [label.score for label in stream.labels]
            assert len(scores) == 2
            assert scores == sorted(scores, reverse=True)


def test_probabilities_sum_to_one(model: Zorro, song: Path) -> None:
    result = model.classify(song, top_k=99)
    assert sum(label.score for label in result.whole["audio"].labels) == pytest.approx(1)


def test_what_a_clip_lacks_is_absent(model: Zorro, song: Path, mute_film: Path) -> None:
    assert model.classify(song).absent == ("video", "fused")
    assert model.classify(mute_film).absent == ("audio", "fused")
    skipped = model.classify(song, modalities=["audio", "video"], skip_missing=True)
    assert (list(skipped.whole), skipped.absent) == (["audio"], ("video",))


def test_asking_for_what_a_clip_lacks_fails(model: Zorro, song: Path, mute_film: Path) -> None:
    with pytest.raises(MissingVideo):
        model.classify(song, modalities=["video"])
    with pytest.raises(MissingAudio):
        model.classify(mute_film, modalities=["fused"])
    with pytest.raises(MissingAudio):
        model.embed(mute_film, modalities=["audio"], skip_missing=True)


def test_the_fused_request_gives_the_unimodal_answers_to_the_bit(model: Zorro, film: Path) -> None:
    together, alone = model.embed(film), model.embed(film, modalities=[Modality.AUDIO])
    np.testing.assert_array_equal(together.whole["audio"].embedding, alone.whole["audio"].embedding)


def test_the_whole_is_pooled_by_the_rule(model: Zorro, tmp_path: Path) -> None:
    waveform = np.concatenate([tone(0.64), np.zeros(10_240, np.float32), tone(0.32, hz=2_000)])
    path = write_clip(tmp_path / "a.wav", waveform=waveform)
    clips = list(read_clips(path, model.bundle.clip_spec, video=False))
    logits = model.logits(Modality.AUDIO, clips)
    expected = (0.64 * logits[0] + 0.32 * logits[2]) / 0.96
    expected = np.exp(expected) / np.exp(expected).sum()
    got = {label.id: label.score for label in model.classify(path, top_k=4).whole["audio"].labels}
    assert [got[x] for x in "abcd"] == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize(
    "make_request", [lambda model: model.label_request(top_k=4), lambda model: model.embedding_request()]
)
def test_the_whole_of_one_window_is_that_window(
    model: Zorro, make_request: Callable[[Zorro], OutputRequest], tmp_path: Path
) -> None:
    """To the bit, as the rule would have it; a padded window too."""
    (clip,) = read_clips(
        write_clip(tmp_path / "a.wav", waveform=tone(0.3)), model.bundle.clip_spec, video=False
    )
    request, builder = make_request(model), ResultBuilder([Modality.AUDIO])
    builder.add([clip], {Modality.AUDIO: model.outputs(Modality.AUDIO, [clip])[request.kind]})
    result = builder.build(request, None, requested=[Modality.AUDIO], warnings=[], decode_seconds=0.0)
    votes = request.votes(np.concatenate(builder.values[Modality.AUDIO]))
    pooled = pool(votes, window_weights(builder.windows, Modality.AUDIO))[np.newaxis]
    (ruled,) = request.to_results(pooled, Modality.AUDIO)
    assert result.whole["audio"].labels == ruled.labels == result.windows[0].streams["audio"].labels
    np.testing.assert_array_equal(result.whole["audio"].embedding, ruled.embedding)


def test_trailing_silence_does_not_change_the_whole(model: Zorro, tmp_path: Path) -> None:
    short = write_clip(tmp_path / "short.wav", waveform=tone(0.64))
    long = write_clip(
        tmp_path / "long.wav", waveform=np.concatenate([tone(0.64), np.zeros(40_960, np.float32)])
    )
    a, b = (model.embed(path).whole["audio"].embedding for path in (short, long))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_silence_is_warned_of(model: Zorro, tmp_path: Path) -> None:
    result = model.classify(write_clip(tmp_path / "a.wav", waveform=np.zeros(16_000, np.float32)))
    assert result.warnings[0].startswith("silent_audio")


def test_spaces_and_lengths(model: Zorro, song: Path) -> None:
    shared = model.embed(song, space=Space.SHARED).whole["audio"].embedding
    features = model.embed(song, space="features", normalize=False).whole["audio"].embedding
    assert (len(shared), len(features)) == (16, 32)
    assert np.linalg.norm(shared) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(features) != pytest.approx(1, abs=1e-3)


def test_only_the_graphs_that_are_used_are_opened(bundle: Path, song: Path) -> None:
    model = Zorro.open(bundle)
    assert model.providers == {}
    model.classify(song)
    assert model.providers == {"audio": ["CPUExecutionProvider"]}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"top_k": 0}, "at least 1 label"),
        ({"threshold": float("nan")}, "probability"),
        ({"threshold": 1.5}, "probability"),
        ({"modalities": ["smell"]}, "give one or more of audio, video, fused"),
        ({"modalities": []}, "give one or more"),
    ],
)
def test_options_that_mean_nothing_fail(
    options: dict[str, object], match: str, model: Zorro, song: Path
) -> None:
    with pytest.raises(InvalidOption, match=match):
        model.classify(song, **options)


def test_an_unknown_space_and_a_late_start_fail(model: Zorro, song: Path) -> None:
    with pytest.raises(InvalidOption, match="shared, features"):
        model.embed(song, space="outer")
    with pytest.raises(InvalidSpan, match="past the end"):
        model.classify(song, time_range=TimeRange(start_seconds=50.0))


def test_self_test_passes_and_finds_other_answers(model: Zorro, copy: Path) -> None:
    assert max(model.self_test().max_abs_error.values()) < 1e-5
    outputs = dict(np.load(copy / "golden" / "outputs.npz"))
    outputs["video.video_logits"] = outputs["video.video_logits"] + 0.01
    np.savez(copy / "golden" / "outputs.npz", **outputs)
    seal_bundle(copy, json.loads((copy / "bundle.json").read_text()))
    with pytest.raises(SelfTestFailed, match="video_logits is off by 0.01"):
        Zorro.open(copy).self_test()


def test_one_flipped_byte_anywhere_is_refused(copy: Path) -> None:
    for path in [p for p in sorted(copy.rglob("*")) if p.is_file()]:
        content = bytearray(path.read_bytes())
        for position in (0, len(content) // 2, len(content) - 1):
            flipped = bytearray(content)
            flipped[position] ^= 1
            path.write_bytes(flipped)
            with pytest.raises(BundleCorrupt, match=path.name):
                Zorro.open(copy)
        path.write_bytes(content)
    Zorro.open(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "fp32" / "weights.bin").unlink()
    with pytest.raises(BundleCorrupt, match=r"weights\.bin is missing"):
        Zorro.open(copy)
    (copy / "bundle.sha256").unlink()
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        Zorro.open(copy)


def test_a_part_is_read_of_any_schema_and_verified_alone(copy: Path) -> None:
    (copy / "fp32" / "weights.bin").unlink()
    seal = json.loads((copy / "bundle.json").read_text()) | {"schema_version": 99}
    files = seal["files"]
    seal_bundle(copy, seal)
    manifest = json.loads((copy / "bundle.json").read_text())
    assert read_sealed(copy, "checkpoint", "MODEL_CARD.md") == manifest
    assert manifest["files"].keys() == files.keys() - {"fp32/weights.bin"}
    (copy / "fp32" / "audio.onnx").unlink()
    read_sealed(copy, "checkpoint")
    with pytest.raises(BundleCorrupt, match=r"audio\.onnx is missing"):
        read_sealed(copy, "fp32")
    with pytest.raises(BundleNotFound, match=r"no bundle\.json"):
        read_sealed(copy / "fp32")


def test_another_schema_or_spec_is_refused(copy: Path, bundle: Path) -> None:
    manifest = json.loads((copy / "bundle.json").read_text())
    seal_bundle(copy, manifest | {"schema_version": 99})
    with pytest.raises(BundleIncompatible, match="schema 99"):
        Zorro.open(copy)
    seal_bundle(copy, manifest | {"clip_spec_hash": "0"})
    with pytest.raises(BundleIncompatible, match="hash"):
        Zorro.open(copy)
    model = Zorro.open(bundle)
    model.bundle = replace(model.bundle, clip_spec=replace(model.bundle.clip_spec, min_hz=50.0))
    with pytest.raises(BundleIncompatible, match="another ClipSpec"):
        model.session(Modality.AUDIO)


def test_no_bundle_fails(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match=r"bundle\.json"):
        Zorro.open(tmp_path)
    with pytest.raises(BundleNotFound, match="model repository"):
        find_bundles(tmp_path)


def test_bundles_are_found_in_order_of_their_number(tmp_path: Path) -> None:
    for version in ("10", "9", "x"):
        (tmp_path / "m" / version).mkdir(parents=True)
        (tmp_path / "m" / version / "bundle.json").touch()
    assert [path.name for path in find_bundles(tmp_path)] == ["x", "9", "10"]


def test_a_provider_that_is_not_there_fails(bundle: Path) -> None:
    with pytest.raises(ProviderUnavailable, match="CUDAExecutionProvider"):
        Zorro.open(bundle, providers=["CUDAExecutionProvider"]).session(Modality.AUDIO)


@pytest.mark.slow
def test_serving_packages_import_no_torch() -> None:
    code = "import media, runtime, service.app, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
