"""EfficientAT's MobileNet into the audio stem: equal to the network written out from the papers' table.

`_network` is that network as plain functions of a state dict, over (frequency, time) as published. The front
end of the published weights is written out here too, for real recordings.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from media.audio import AudioReader
from media.container import MediaLimits, open_container
from models import Stream, ZorroModel, preset
from models.importers import import_efficientat
from models.weights import CheckpointError
from tests.models.importers.layout_weights import copied_weights, new_model
from tests.small_models import SMALL, small_config

# Howard et al. 2019, table 1: kernel, widened and out channels, squeeze-and-excitation, activation, stride.
TABLE = [
    (3, 16, 16, "", "RE", 1), (3, 64, 24, "", "RE", 2), (3, 72, 24, "", "RE", 1), (5, 72, 40, "SE", "RE", 2),
    (5, 120, 40, "SE", "RE", 1), (5, 120, 40, "SE", "RE", 1), (3, 240, 80, "", "HS", 2),
    (3, 200, 80, "", "HS", 1), (3, 184, 80, "", "HS", 1), (3, 184, 80, "", "HS", 1),
    (3, 480, 112, "SE", "HS", 1), (3, 672, 112, "SE", "HS", 1), (5, 672, 160, "SE", "HS", 2),
    (5, 960, 160, "SE", "HS", 1), (5, 960, 160, "SE", "HS", 1),
]  # fmt: skip
NUM_CLASSES = 527


def _network(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The last map and the logits of [batch, 1, mel bins, frames]."""

    def layer(name: str, x: Tensor, activation: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{name}.0.weight"]
        x = F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, groups=groups)
        mean, variance, scale, shift = (
            weights[f"{name}.1.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (variance + 1e-3).sqrt() * scale + shift
        return {"RE": x.relu(), "HS": x * (x + 3).clamp(0, 6) / 6, "": x}[activation]

    x = layer("features.0", x, "HS", stride=2)
    for i, (_, _, _, squeezes, activation, stride) in enumerate(TABLE, 1):
        before, j = x, 0
        if f"features.{i}.block.{2 + bool(squeezes)}.0.weight" in weights:
            x, j = layer(f"features.{i}.block.0", x, activation), 1
        x = layer(f"features.{i}.block.{j}", x, activation, stride, groups=x.shape[1])
        if squeezes:
            name = f"features.{i}.block.{j + 1}.conc_se_layers.0"
            said = F.linear(x.mean(dim=(2, 3)), weights[f"{name}.fc1.weight"], weights[f"{name}.fc1.bias"])
            said = F.linear(said.relu(), weights[f"{name}.fc2.weight"], weights[f"{name}.fc2.bias"])
            x, j = x * said.sigmoid()[:, :, None, None], j + 1
        x = layer(f"features.{i}.block.{j + 1}", x, "")
        x = before + x if stride == 1 and before.shape == x.shape else x
    x = layer("features.16", x, "HS")
    hidden = F.linear(x.mean(dim=(2, 3)), weights["classifier.2.weight"], weights["classifier.2.bias"])
    hidden = hidden * (hidden + 3).clamp(0, 6) / 6
    return x, F.linear(hidden, weights["classifier.5.weight"], weights["classifier.5.bias"])


def efficientat_weights(width: float = 0.1, num_classes: int = 2) -> dict[str, Tensor]:
    """Made-up weights in the published layout, with channels in multiples of 8."""

    def scaled(channels: float) -> int:
        nearest = max(8, int(channels + 4) // 8 * 8)
        return nearest if nearest >= 0.9 * channels else nearest + 8

    def layer(name: str, out: int, inner: int, kernel: int = 1) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.0.weight", torch.randn(out, inner, kernel, kernel) / kernel / inner**0.5
        for part in ("weight", "running_var"):
            yield f"{name}.1.{part}", torch.rand(out) + 0.5
        for part in ("bias", "running_mean"):
            yield f"{name}.1.{part}", torch.randn(out) / 4
        yield f"{name}.1.num_batches_tracked", torch.tensor(7)

    torch.manual_seed(4)
    channels = scaled(16 * width)
    made = dict(layer("features.0", channels, 1, 3))
    for i, (kernel, widened, out, squeezes, _, _) in enumerate(TABLE, 1):
        hidden, j = scaled(widened * width), 0
        if hidden != channels:
            made |= layer(f"features.{i}.block.0", hidden, channels)
            j = 1
        made |= layer(f"features.{i}.block.{j}", hidden, 1, kernel)
        if squeezes:
            inside, name = scaled(hidden // 4), f"features.{i}.block.{j + 1}.conc_se_layers.0"
            made |= {
                f"{name}.fc1.weight": torch.randn(inside, hidden),
                f"{name}.fc1.bias": torch.randn(inside),
            }
            made |= {
                f"{name}.fc2.weight": torch.randn(hidden, inside),
                f"{name}.fc2.bias": torch.randn(hidden),
            }
            j += 1
        channels = scaled(out * width)
        made |= layer(f"features.{i}.block.{j + 1}", channels, hidden)
    last, top = scaled(960 * width), scaled(1280 * width)
    made |= layer("features.16", last, channels)
    made |= {"classifier.2.weight": torch.randn(top, last), "classifier.2.bias": torch.randn(top)}
    return made | {
        "classifier.5.weight": torch.randn(num_classes, top),
        "classifier.5.bias": torch.randn(num_classes),
    }


def _assert_equals_network(model: ZorroModel, weights: dict[str, Tensor], log_mel: Tensor) -> None:
    """Map and logits of the model against those of the written-out network."""
    last_map, logits = _network(weights, ((log_mel + 4.5) / 5)[:, None].transpose(2, 3))
    got, end = model.audio_tokens.map(log_mel), logits.shape[1]
    scale = last_map.abs().max().item()
    torch.testing.assert_close(got, last_map.transpose(2, 3), atol=1e-5 * scale, rtol=1e-4)
    out = model(log_mel)
    for output in (out.audio, out.fusion, out.overall):
        torch.testing.assert_close(
            output.logits[:, :end], logits, atol=1e-5 * logits.abs().max().item(), rtol=1e-4
        )
        assert (output.logits[:, end:] == -8).all()


@pytest.mark.parametrize("width", [0.1, 0.4])
@torch.no_grad()
def test_made_up_weights_give_what_the_written_out_network_gives(width: float) -> None:
    weights = efficientat_weights(width)
    small = small_config("mobile").to_dict()["mobile"] | {"audio_width": width}
    model = new_model(small_config("mobile", mobile=small))
    report = import_efficientat(model, weights)
    assert set(report.unused) == {name for name in weights if name.endswith("num_batches_tracked")}
    log_mel = torch.randn(2, *model.config.audio_shape, generator=torch.Generator().manual_seed(1)) * 3 - 4
    _assert_equals_network(model, weights, log_mel)


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> dict[str, Tensor]:
    """The trained weights of mn04."""
    path = shared_dir / "data" / "teachers" / "efficientat_mn04_as.pt"
    if not path.is_file():
        pytest.skip("no weights of EfficientAT here")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


@pytest.fixture(scope="module")
def student(published: dict[str, Tensor]) -> ZorroModel:
    mobile = {"video_width": 0.1, "audio_classes": (0, NUM_CLASSES)}
    model = new_model(preset("mobile", num_classes=530, video_shape=(1, 32, 32, 3), mobile=mobile))
    report = import_efficientat(model, published)
    assert len(report.loaded) == 266
    assert set(report.unused) == {name for name in published if name.endswith("num_batches_tracked")}
    return model


@torch.no_grad()
def test_published_weights_give_what_the_written_out_network_gives(
    published: dict[str, Tensor], student: ZorroModel
) -> None:
    log_mel = torch.randn(1, 512, 128, generator=torch.Generator().manual_seed(1)) * 3 - 4
    _assert_equals_network(student, published, log_mel)


def _first_samples(path: Path, num_samples: int) -> np.ndarray:
    """Mono, at 32 kHz; zeros after the end."""
    with open_container(path, MediaLimits()) as container:
        return AudioReader(container, 32_000, MediaLimits()).read(0, num_samples, keep_from=0)[0]


def _log_mel(waveform: np.ndarray) -> np.ndarray:
    """[frames, 128] of mono 32 kHz sound, by the front end that the published weights were trained with."""
    emphasised = waveform[1:] - 0.97 * waveform[:-1]
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799), 112)
    padded = np.pad(emphasised, 512, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::320]
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    mel = 1127 * np.log(1 + np.fft.rfftfreq(1024, 1 / 32_000) / 700)
    edges = np.linspace(0, 1127 * np.log(1 + 15_000 / 700), 130)
    rising = (mel[:, None] - edges[None, :-2]) / (edges[1] - edges[0])
    falling = (edges[None, 2:] - mel[:, None]) / (edges[1] - edges[0])
    filters = np.maximum(0, np.minimum(rising, falling))
    log_mel: np.ndarray = np.log(power @ filters + 1e-5).astype(np.float32)
    return log_mel


@pytest.mark.parametrize(
    ("recording", "label"),
    [
        ("dog", "Dog"),
        ("rooster", "Chicken, rooster"),
        ("crying_baby", "Baby cry, infant cry"),
        ("sneeze", "Sneeze"),
    ],
)
@torch.no_grad()
def test_real_recordings_are_recognised(
    recording: str, label: str, shared_dir: Path, student: ZorroModel
) -> None:
    with (shared_dir / "data" / "teachers" / "audioset_labels.csv").open() as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    folder = shared_dir / "data" / "sights_sounds"
    with (folder / "manifest.csv").open() as file:
        rows = [
            r for r in csv.DictReader(file) if r["label"] == recording and r["source"].startswith("ESC-10")
        ]
    found = 0
    for row in rows[:5]:
        log_mel = torch.from_numpy(_log_mel(_first_samples(folder / row["path"], 512 * 320)))[None]
        logits = student.forward_stream(Stream.AUDIO, log_mel).logits[0, :NUM_CLASSES]
        found += names.index(label) in logits.topk(5).indices.tolist()
    assert found >= 4


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features.4.block.2.conc_se_layers.1.fc1.weight": torch.zeros(1)}, "unknown=.*conc_se_layers.1"),
        ({"features.16.0.weight": torch.zeros(8, 8, 1, 1)}, r"features\.16\.0\.weight: got \(8, 8, 1, 1\)"),
        (
            {"classifier.5.weight": torch.zeros(3, 128)},
            r"classifier\.5\.weight: got \(3, 128\), wanted \(2, 128\)",
        ),
        ({"features.1.block.0.0.weight": None}, "missing=.*features.1.block.0.0.weight"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change: dict[str, Tensor | None], match: str) -> None:
    model = new_model(small_config("mobile"))
    before = copied_weights(model)
    weights = {name: x for name, x in (efficientat_weights() | change).items() if x is not None}
    with pytest.raises(CheckpointError, match=match):
        import_efficientat(model, weights)
    after = copied_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_report_says_where_every_weight_comes_from() -> None:
    model = new_model(small_config("mobile"))
    before = copied_weights(model)
    report = import_efficientat(model, efficientat_weights())
    after = copied_weights(model)
    assert {*report.loaded, *report.kept} == after.keys()
    assert {name for name in after if not torch.equal(before[name], after[name])} == set(report.loaded)
    assert not [n for n in report.kept if n.startswith(("audio_tokens.embed", "stem_classifiers.audio"))]


def test_a_stem_without_a_classifier_leaves_the_classifier_unused() -> None:
    model = new_model(small_config("mobile").without_stem_classifiers())
    report = import_efficientat(model, efficientat_weights())
    unused = {name for name in report.unused if "num_batches" not in name}
    assert unused == {f"classifier.{i}.{part}" for i in (2, 5) for part in ("weight", "bias")}


def test_another_stem_or_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="need stem=mobile, the model has stem=conv"):
        import_efficientat(new_model(preset("vit-tiny", num_classes=2, **SMALL)), {})
    with pytest.raises(ValueError, match=r"audio_mean=-8.0, wanted -4.5"):
        import_efficientat(new_model(small_config("mobile", audio_mean=-8.0)), efficientat_weights())
