"""Fixtures: made clips, a small untrained bundle, and the place of real media where it is there."""

import os
from pathlib import Path

import pytest

from media import ClipSpec
from tests.leftovers import nothing_is_left, temporary_folder  # noqa: F401 - fixtures of every test
from tests.made_media import moving_frames, tone, write_clip
from tests.made_once import MadeOnce, made_once  # noqa: F401 - a fixture
from tests.measured_tests import pytest_runtest_protocol  # noqa: F401 - a hook


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real recordings; tests that use them are skipped where they are not."""
    path = Path(os.environ.get("ZORRO_SHARED", Path(__file__).parents[2] / "shared"))
    if not path.is_dir():
        pytest.skip("no real recordings here: set ZORRO_SHARED to a folder that has them")
    return path


@pytest.fixture(scope="session")
def spec() -> ClipSpec:
    """Small shapes; windows of 0.64 s."""
    return ClipSpec(num_mel_frames=64, num_mel_bins=32, num_video_frames=2, frame_size=32)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, spec: ClipSpec) -> Path:
    """A small untrained model of four labels."""
    import torch

    from models import ZorroModel, preset
    from models.weights import save_checkpoint
    from tests.small_models import SMALL

    torch.manual_seed(0)
    model = ZorroModel(preset("vit-tiny", num_classes=4, **SMALL))
    folder = tmp_path_factory.mktemp("checkpoint")
    labels = [{"id": x, "label": x.upper(), "modalities": ["audio", "video"]} for x in "abcd"]
    save_checkpoint(folder, model, clip_spec=spec.to_dict(), labels=labels)
    return folder


@pytest.fixture(scope="session")
def bundle(made_once: MadeOnce, checkpoint: Path) -> Path:  # noqa: F811
    """The small model as a bundle, exported by the real exporter. Tests share it, and may not change it."""
    from export.bundle_writer import export_checkpoint

    bundles = made_once(
        "bundles", lambda out: export_checkpoint(checkpoint, out / "small" / "1", name="small", version="1")
    )
    return bundles / "small" / "1"


@pytest.fixture(scope="session")
def sigmoid_checkpoint(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The small model as if a recipe with `multi_label = true` had trained it: any number of its labels may
    hold."""
    from models.weights import load_checkpoint, save_checkpoint

    loaded, folder = load_checkpoint(checkpoint), tmp_path_factory.mktemp("sigmoid")
    save_checkpoint(
        folder, loaded.model, clip_spec=loaded.clip_spec, labels=loaded.labels, recipe={"multi_label": True}
    )
    return folder


@pytest.fixture(scope="session")
def sigmoid_bundle(tmp_path_factory: pytest.TempPathFactory, sigmoid_checkpoint: Path, bundle: Path) -> Path:
    """The same as a bundle."""
    from export.bundle_writer import export_checkpoint
    from tests.known_graphs import known_graphs

    out = tmp_path_factory.mktemp("sigmoid_bundles") / "several" / "1"
    with known_graphs(bundle):
        return export_checkpoint(sigmoid_checkpoint, out, name="several", version="1")


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of 20 resamples: a thousand of them take most of the time of a test that reads none."""
    from evaluation.metrics import bootstrap_interval

    monkeypatch.setattr(
        "evaluation.scorer.bootstrap_interval",
        lambda *arrays, **options: bootstrap_interval(*arrays, **options | {"num_resamples": 20}),
    )


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture and sound."""
    path = tmp_path_factory.mktemp("media") / "film.mp4"
    return write_clip(path, waveform=tone(2.0), frames=moving_frames(2.0))


@pytest.fixture(scope="session")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of sound."""
    return write_clip(tmp_path_factory.mktemp("media") / "song.wav", waveform=tone(1.0))


@pytest.fixture(scope="session")
def mute_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of picture."""
    return write_clip(tmp_path_factory.mktemp("media") / "mute.mp4", frames=moving_frames(1.0))
