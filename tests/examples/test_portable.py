"""The portable examples answer as `runtime` does, and need nothing of it.

Sound and frames come from the README's own FFmpeg commands, whose filters are run here by PyAV. JavaScript is
tested where Node and its package are: `npm install --ignore-scripts` in examples/portable, or a folder
node_modules elsewhere, named by ZORRO_NODE_MODULES.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from av.filter import Graph

from export.golden import golden_inputs
from media import ClipSpec, read_clips, read_waveform
from media.log_mel import log_mel
from media.spec import LATER_NUMBERS
from runtime import Zorro
from runtime.results import ClipResult
from tests.deciding_bundle import deciding_bundle
from tests.made_films import write_film, write_wav

PORTABLE = Path(__file__).parents[2] / "examples" / "portable"
README = (PORTABLE / "README.md").read_text()
FPS = 25
TAGGER_NUMBERS = {
    "sample_rate": 32_000,
    "window_length": 800,
    "fft_length": 1_024,
    "hop_length": 320,
    "first_centre": 1,
    "symmetric_window": True,
    "unit_energy": False,
    "pre_emphasis": 0.97,
    "num_mel_bins": 128,
    "max_hz": 15_000.0,
    "log_offset": 1e-5,
}
"""A front end in which every number is another than by default."""
ALONE = """
import os.path, runpy, sys
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])  # as where a script is run
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    names = {name.partition(".")[0] for name in sys.modules}
    print(" ".join(sorted(names - sys.stdlib_module_names)), file=sys.stderr)
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def ffmpeg_options(output: str) -> dict[str, str]:
    """Options of the README's FFmpeg command that writes `output`."""
    for line in README.splitlines():
        words = shlex.split(line) if line.startswith("ffmpeg ") else []
        if words and words[-1] == output:
            return {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("-")}
    raise ValueError(f"no FFmpeg command that writes {output}")


def filtered(path: Path, kind: str, filters: str) -> Iterator[np.ndarray]:
    """Arrays of the frames that come out of a chain of FFmpeg's filters."""
    with av.open(str(path)) as container:
        stream = container.streams.get({kind: 0})[0]
        graph = Graph()
        is_video = kind == "video"
        last = graph.add_buffer(template=stream) if is_video else graph.add_abuffer(template=stream)
        for text in [*filters.split(","), "buffersink" if is_video else "abuffersink"]:
            name, _, arguments = text.partition("=")
            added = graph.add(name, arguments or None)
            last.link_to(added)
            last = added
        graph.configure()
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            while True:
                try:
                    yield graph.pull().to_ndarray()
                except (av.BlockingIOError, av.EOFError):
                    break


def extract_sound(film: Path, wav: Path, sample_rate: int) -> Path:
    """What the README's command makes of a film's sound, at another rate than its own 32 kHz."""
    options = ffmpeg_options("sound.wav")
    assert options["-c:a"] == "pcm_f32le"
    assert options["-ar"] == "32000"
    filters = f"{options['-af']},aresample={sample_rate},aformat=sample_fmts=fltp"
    channels = np.concatenate(list(filtered(film, "audio", filters)), axis=1)
    return write_wav(wav, channels, sample_rate=sample_rate)


def extract_frames(film: Path, raw: Path, spec: ClipSpec) -> Path:
    """What the README's command makes of a film's picture, in other sizes than its own 256 and 224
    pixels."""
    options = ffmpeg_options("frames.rgb")
    assert (options["-f"], options["-pix_fmt"]) == ("rawvideo", "rgb24")
    assert re.findall(r"\b(?:scale|crop)=\d+:\d+:", options["-vf"]) == ["scale=256:256:", "crop=224:224:"]
    cover, size = round(spec.frame_size / spec.crop_fraction), spec.frame_size
    filters = options["-vf"].replace("scale=256:256:", f"scale={cover}:{cover}:")
    filters = filters.replace("crop=224:224:", f"crop={size}:{size}:")
    raw.write_bytes(b"".join(rgb.tobytes() for rgb in filtered(film, "video", filters)))
    return raw


@pytest.fixture(scope="module")
def stereo_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.6 s of different tones left and right, then silence, and of waves that move: windows of 0.64 s, the
    last padded."""

    def sound(times: np.ndarray) -> np.ndarray:
        left, right = np.sin(2 * np.pi * 440 * times), 0.4 * np.sin(2 * np.pi * 3000 * times * (1 + times))
        return 0.5 * np.stack([left, right]) * (times < 1.2)

    def picture(seconds: float) -> np.ndarray:
        y, x = np.mgrid[:96, :128]
        wave = 127 + 120 * np.sin(x / 20 + y / 13 + 4 * seconds)
        return np.stack([wave, wave[::-1], np.full_like(wave, 60 * seconds)], axis=-1).astype(np.uint8)

    path = tmp_path_factory.mktemp("portable") / "film.mp4"
    return write_film(
        path,
        seconds=1.6,
        fps=FPS,
        size=(128, 96),
        layout="stereo",
        sample_rate=44_100,
        sound=sound,
        picture=picture,
    )


@pytest.fixture(scope="module")
def sound(stereo_film: Path, spec: ClipSpec) -> Path:
    return extract_sound(stereo_film, stereo_film.with_name("sound.wav"), spec.sample_rate)


@pytest.fixture(scope="module")
def frames(stereo_film: Path, spec: ClipSpec) -> Path:
    return extract_frames(stereo_film, stereo_film.with_name("frames.rgb"), spec)


@pytest.fixture(scope="module")
def front_end() -> ModuleType:
    found = importlib.util.spec_from_file_location("portable_front_end", PORTABLE / "front_end.py")
    module = importlib.util.module_from_spec(found)
    sys.modules["portable_front_end"] = module
    found.loader.exec_module(module)
    return module


def run_python(*words: object) -> subprocess.CompletedProcess[str]:
    """The example in a process of its own; the last line of its stderr names what it imported."""
    command = [sys.executable, "-c", ALONE, str(PORTABLE / "classify.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=False)


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example beside its package, or a skip that says what is missing."""
    modules = Path(os.environ.get("ZORRO_NODE_MODULES", PORTABLE / "node_modules"))
    if shutil.which("node") is None:
        pytest.skip("no node here: install Node 20 or later")
    if not (modules / "onnxruntime-node").is_dir():
        pytest.skip(
            f"no onnxruntime-node in {modules}: npm install --ignore-scripts, or set ZORRO_NODE_MODULES"
        )
    folder = tmp_path_factory.mktemp("node")
    for path in (*PORTABLE.glob("*.mjs"), PORTABLE / "package.json"):
        shutil.copy(path, folder)
    (folder / "node_modules").symlink_to(modules.resolve())
    return folder


@pytest.fixture
def run_node(node_folder: Path) -> Run:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = ["node", str(node_folder / "classify.mjs"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=False)

    return run


@pytest.fixture(params=["python", "node"])
def run(request: pytest.FixtureRequest) -> Run:
    """The example in each language."""
    return run_python if request.param == "python" else request.getfixturevalue("run_node")


def answer_of(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_same(answer: dict, result: ClipResult) -> None:
    assert answer.keys() == result.whole.keys()
    for stream, labels in answer.items():
        wanted = {x.id: x.score for x in result.whole[stream].labels}
        assert [x["id"] for x in labels] == list(wanted)
        assert [x["label"] for x in labels] == [x.label for x in result.whole[stream].labels]
        assert {x["id"]: x["score"] for x in labels} == pytest.approx(wanted, abs=2e-5)


def test_film_gets_the_scores_of_runtime(
    run: Run, bundle: Path, stereo_film: Path, sound: Path, frames: Path
) -> None:
    result = Zorro.open(bundle).classify(stereo_film)
    assert [window.padded for window in result.windows] == [False, False, True]
    assert_same(answer_of(run(bundle, "--sound", sound, "--frames", frames, "--fps", f"{FPS}/1")), result)


def test_film_gets_the_scores_of_labels_that_do_not_compete(
    run: Run, sigmoid_bundle: Path, stereo_film: Path, sound: Path, frames: Path
) -> None:
    result = Zorro.open(sigmoid_bundle).classify(stereo_film)
    answer = answer_of(run(sigmoid_bundle, "--sound", sound, "--frames", frames, "--fps", f"{FPS}/1"))
    assert_same(answer, result)
    assert all(sum(x["score"] for x in labels) > 1.1 for labels in answer.values())


def test_film_gets_the_labels_that_a_bundle_decides_on(
    run: Run, sigmoid_bundle: Path, stereo_film: Path, sound: Path, frames: Path, tmp_path: Path
) -> None:
    decision = {"known_labels_only": True, "threshold": {"audio": 0.1, "video": 1}}
    decides = deciding_bundle(sigmoid_bundle, tmp_path, decision)
    answer = answer_of(run(decides, "--sound", sound, "--frames", frames, "--fps", f"{FPS}/1"))
    assert_same(answer, Zorro.open(decides).classify(stereo_film))
    assert [len(answer[stream]) for stream in ("audio", "video", "fused")] == [3, 0, 4]


def test_scores_of_an_unknown_kind_are_refused(run: Run, bundle: Path, sound: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(manifest | {"scores": "tanh"}))
    done = run(copy, "--sound", sound)
    assert done.returncode == 1
    assert re.search(
        r"scores='?tanh'?, known here are softmax, sigmoid; copy a newer example", done.stderr
    ), done.stderr


def test_sound_alone(run: Run, bundle: Path, stereo_film: Path, sound: Path) -> None:
    result = Zorro.open(bundle).classify(stereo_film, modalities="audio", top_k=2)
    assert_same(answer_of(run(bundle, "--sound", sound, "--top-k", 2)), result)


def test_picture_alone(run: Run, bundle: Path, stereo_film: Path, frames: Path) -> None:
    result = Zorro.open(bundle).classify(stereo_film, modalities="video")
    assert_same(answer_of(run(bundle, "--frames", frames, "--fps", FPS)), result)


def test_sound_of_whole_numbers(run: Run, bundle: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(3).uniform(-0.6, 0.6, (6, 12_000))
    wav = write_wav(tmp_path / "six.wav", noise, codec="pcm_s16le")
    assert_same(answer_of(run(bundle, "--sound", wav)), Zorro.open(bundle).classify(wav))


def test_silence(run: Run, bundle: Path, tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "silence.wav", np.zeros(16_000))
    assert_same(answer_of(run(bundle, "--sound", wav)), Zorro.open(bundle).classify(wav))


def test_self_test(run: Run, bundle: Path) -> None:
    answer = answer_of(run(bundle, "--self-test"))
    assert answer["max_abs_error"].keys() == {"audio", "video", "fused"}
    assert max(answer["max_abs_error"].values()) <= 1e-4
    assert answer["log_mel"] <= 2e-4


@pytest.mark.parametrize("name", ["outputs", "inputs"])
def test_self_test_fails(run: Run, name: str, bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    with np.load(copy / "golden" / f"{name}.npz") as stored:
        arrays = dict(stored)
    arrays["audio" if name == "inputs" else "fused.fusion_logits"][0, 0] += 0.5
    np.savez_compressed(copy / "golden" / f"{name}.npz", **arrays)
    done = run(copy, "--self-test")
    assert done.returncode == 1
    assert re.search(r"is off by 0?\.\d+ on the golden clips", done.stderr), done.stderr


@pytest.mark.slow
def test_bundle_of_schema_1(run: Run, bundle: Path, tmp_path: Path, sound: Path) -> None:
    """Graphs at the top, and one tolerance."""
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["graphs"] = manifest.pop("variants")["fp32"]["graphs"]
    manifest["golden"]["tolerance"] = 1e-3
    del manifest["variant_of"], manifest["scores"]
    (copy / "bundle.json").write_text(json.dumps(manifest))
    assert answer_of(run(copy, "--self-test"))["allowed"] == 1e-3
    assert answer_of(run(copy, "--sound", sound)) == answer_of(run(bundle, "--sound", sound))


@pytest.mark.slow
def test_variant_of_the_cpu_unless_another_is_named(
    run: Run, bundle: Path, tmp_path: Path, sound: Path
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((copy / "bundle.json").read_text())
    (copy / "fp32").rename(copy / "moved")
    moved = json.loads(json.dumps(manifest["variants"]["fp32"]).replace("fp32/", "moved/"))
    manifest["variants"]["moved"] = moved
    manifest["variant_of"] = {"*": "fp32", "CPUExecutionProvider": "moved"}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    assert answer_of(run(copy, "--sound", sound)) == answer_of(
        run(copy, "--sound", sound, "--variant", "moved")
    )
    assert run(copy, "--sound", sound, "--variant", "fp32").returncode > 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "neither sound nor frames"),
        (["--frames", "frames.rgb"], "--frames needs --fps"),
        (["--frames", "frames.rgb", "--fps", "0"], "--frames needs --fps"),
        (["--frames", "cut.rgb", "--fps", "25"], "no whole number of frames"),
        (["--sound", "frames.rgb"], "no WAV file"),
        (["--sound", "slow.wav"], "has 8000 Hz"),
        (["--sound", "double.wav"], "64 bits"),
        (["--sound", "headless.wav"], "no format or no samples"),
        (["--sound", "empty.wav"], "0 samples"),
        (["--sound", "lost.wav"], "(?i)no such file"),
        (["--sound", "slow.wav", "--top-k", "0"], "at least 1 label"),
        (["--variant", "fp8", "--self-test"], "--variant fp8: the bundle has fp32"),
    ],
)
def test_refusals(
    run: Run, words: list[str], reason: str, bundle: Path, tmp_path: Path, spec: ClipSpec
) -> None:
    write_wav(tmp_path / "slow.wav", np.zeros(800), sample_rate=8_000)
    write_wav(tmp_path / "double.wav", np.zeros(800), codec="pcm_f64le")
    (tmp_path / "frames.rgb").write_bytes(bytes(3 * spec.frame_size**2))
    (tmp_path / "cut.rgb").write_bytes(bytes(3 * spec.frame_size**2 - 1))
    (tmp_path / "headless.wav").write_bytes(b"RIFF\x04\0\0\0WAVE")
    wav_format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32)
    (tmp_path / "empty.wav").write_bytes(b"RIFF\x24\0\0\0WAVE" + wav_format + b"data\0\0\0\0")
    placed = [tmp_path / word if Path(word).suffix in (".wav", ".rgb") else word for word in words]
    done = run(bundle, *placed)
    assert done.returncode > 0
    assert re.search(reason, done.stderr), done.stderr


def test_python_imports_numpy_and_onnxruntime_alone(bundle: Path, sound: Path, frames: Path) -> None:
    done = run_python(bundle, "--sound", sound, "--frames", frames, "--fps", FPS)
    answer_of(done)
    imported = {name for name in done.stderr.splitlines()[-1].split() if not name.startswith("_")}
    assert {"numpy", "onnxruntime", "front_end"} <= imported
    # installers' hooks, which every process of an environment imports, are none of the example's
    assert imported <= {"numpy", "onnxruntime", "front_end", "sitecustomize"}


def test_log_mel_is_that_of_media(front_end: ModuleType) -> None:
    noise = np.random.default_rng(1).uniform(-1, 1, 8_000).astype(np.float32)
    for spec in (
        ClipSpec(num_mel_frames=50),
        ClipSpec(num_mel_frames=50, window_length=400, num_mel_bins=40, min_hz=60.0, max_hz=7_600.0),
    ):
        np.testing.assert_allclose(front_end.log_mel(noise, spec.to_dict()), log_mel(noise, spec), atol=1e-4)


@pytest.mark.parametrize("name", [None, *(name for name in TAGGER_NUMBERS if name in LATER_NUMBERS)])
def test_log_mel_by_later_numbers_is_that_of_media(name: str | None, front_end: ModuleType) -> None:
    """By one of them, and by all."""
    spec = ClipSpec(**(TAGGER_NUMBERS if name is None else {name: TAGGER_NUMBERS[name]}))
    noise = np.random.default_rng(1).uniform(-1, 1, 8_000).astype(np.float32)
    np.testing.assert_allclose(front_end.log_mel(noise, spec.to_dict()), log_mel(noise, spec), atol=2e-4)


NODE_LOG_MEL = """
import { readFileSync } from "node:fs";
import { logMel } from "FRONT_END";
const { samples, spec } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(Array.from(logMel(Float32Array.from(samples), spec))));
"""


@pytest.mark.parametrize(
    "numbers",
    [
        *({"window_length": length, "min_hz": 60.0, "max_hz": 7_600.0} for length in (512, 400, 162)),
        *({name: value} for name, value in TAGGER_NUMBERS.items() if name in LATER_NUMBERS),
        TAGGER_NUMBERS,
    ],
    ids=lambda numbers: ",".join(numbers),
)
def test_log_mel_of_node_is_that_of_media(numbers: dict[str, float]) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node here: install Node 20 or later")
    spec = ClipSpec(**numbers | {"num_mel_bins": 20})
    noise = np.random.default_rng(1).uniform(-1, 1, 20 * spec.hop_length).astype(np.float32)
    code = NODE_LOG_MEL.replace("FRONT_END", (PORTABLE / "front_end.mjs").as_uri())
    asked = json.dumps({"samples": noise.tolist(), "spec": spec.to_dict()})
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code],
        input=asked,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    np.testing.assert_allclose(np.reshape(json.loads(done.stdout), (20, 20)), log_mel(noise, spec), atol=1e-4)


def test_windows_are_those_of_media(
    front_end: ModuleType, stereo_film: Path, sound: Path, frames: Path, spec: ClipSpec
) -> None:
    waveform = read_waveform(sound, spec)
    np.testing.assert_allclose(waveform, read_waveform(stereo_film, spec), atol=1e-6)
    rgb = np.fromfile(frames, np.uint8).reshape(-1, *spec.video_shape[1:])
    ours = front_end.cut_windows(spec.to_dict(), waveform=waveform, frames=rgb, fps=FPS)
    theirs = list(read_clips(stereo_film, spec))
    assert len(ours) == len(theirs)
    for window, clip in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(window.audio, clip.audio, atol=1e-3)
        np.testing.assert_array_equal(window.video, clip.video)
        assert window.is_silent == clip.is_silent
        assert window.audio_seconds == pytest.approx(clip.audio_seconds)
        assert window.video_seconds == pytest.approx(clip.video_seconds)


def test_a_share_of_the_frame_is_that_of_media(stereo_film: Path, spec: ClipSpec, tmp_path: Path) -> None:
    spec = replace(spec, frame_size=28, crop_fraction=0.875)
    raw = extract_frames(stereo_film, tmp_path / "frames.rgb", spec)
    rgb = np.fromfile(raw, np.uint8).reshape(-1, *spec.video_shape[1:])
    clip = next(iter(read_clips(stereo_film, spec, audio=False)))
    np.testing.assert_array_equal(rgb[[4, 12]], clip.video)  # at 0.16 s and 0.48 s


def test_cut_windows_fails(front_end: ModuleType, spec: ClipSpec) -> None:
    with pytest.raises(ValueError, match="neither sound nor frames"):
        front_end.cut_windows(spec.to_dict(), waveform=None, frames=None, fps=25)


@pytest.mark.parametrize(("waveform", "frames", "weights"), [
    (np.zeros(8_000, np.float32), None, [(0, 0, 0)]),
    (np.full(8_000, 0.1, np.float32), None, [(0.5, 0, 0.5)]),
    (np.full(8_000, 0.1, np.float32), 8, [(0.5, 0.32, 0.5)]),
    (np.full(4_000, 0.1, np.float32), 23, [(0.25, 0.64, 0.64), (0, 0.28, 0.28)]),
    (None, 22, [(0, 0.64, 0.64)]),
])  # fmt: skip
def test_weights(
    front_end: ModuleType,
    spec: ClipSpec,
    waveform: np.ndarray | None,
    frames: int | None,
    weights: list[tuple[float]],
) -> None:
    """At 25 frames per second and 0.64 s a window: 23 frames leave 0.28 s, 22 leave 0.24 s, which is too
    little."""
    rgb = None if frames is None else np.zeros((frames, *spec.video_shape[1:]), np.uint8)
    windows = front_end.cut_windows(spec.to_dict(), waveform=waveform, frames=rgb, fps=25)
    got = [tuple(window.weight(stream) for stream in ("audio", "video", "fused")) for window in windows]
    assert got == [pytest.approx(row) for row in weights]


def test_frames_are_chosen_by_time(front_end: ModuleType) -> None:
    """Windows of 5.12 s with two frames, at 1.28 s and 3.84 s: at 25 frames per second both start just
    then."""
    spec = ClipSpec().to_dict()
    assert front_end.frame_indices(spec, 0.0, 200, 25.0) == [32, 96]
    assert front_end.frame_indices(spec, 5.12, 200, 25.0) == [160, 199]
    assert front_end.frame_indices(spec, 0.0, 200, float(Fraction(30_000, 1001))) == [38, 115]


def test_readme_takes_its_numbers_from_the_bundle() -> None:
    manifest = json.loads((PORTABLE.parents[1] / "bundles" / "everyday" / "1" / "bundle.json").read_text())
    spec = ClipSpec.from_dict(manifest["clip_spec"])
    cover, size = round(spec.frame_size / spec.crop_fraction), spec.frame_size
    assert ffmpeg_options("sound.wav")["-ar"] == str(spec.sample_rate)
    assert f"scale={cover}:{cover}:" in ffmpeg_options("frames.rgb")["-vf"]
    assert f"crop={size}:{size}:" in ffmpeg_options("frames.rgb")["-vf"]
    assert golden_inputs(spec)["audio"].shape[1:] == (spec.num_mel_frames, spec.num_mel_bins)


def test_ffmpeg_options_fails() -> None:
    with pytest.raises(ValueError, match=re.escape("no FFmpeg command that writes film.mkv")):
        ffmpeg_options("film.mkv")


def test_readme_links_and_files_are_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    files = re.findall(r"`(\w+\.(?:py|mjs))`", README)
    assert links
    assert set(files) == {path.name for pattern in ("*.py", "*.mjs") for path in PORTABLE.glob(pattern)}
    assert [name for name in (*links, *files) if not (PORTABLE / name).exists()] == []
