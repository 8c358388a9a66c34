"""Calibration: a temperature undoes a known distortion, and changes no answer's order."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.manifests import Item
from evaluation.calibration import calibrate, fit_temperature, fold_temperatures
from media import ClipSpec
from models import Stream, ZorroModel, preset
from tests.made_media import tone, write_clip
from tests.small_models import SMALL


def _drawn(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(z), and logits that are z times the temperature."""
    random = np.random.default_rng(0)
    z = random.normal(0, 2, (20_000, 5))
    truth = (z + random.gumbel(size=z.shape)).argmax(1)  # Gumbel-max: a draw from softmax(z)
    return z * temperature, truth


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_distortion_is_found(temperature: float) -> None:
    assert fit_temperature(*_drawn(temperature)) == pytest.approx(temperature, rel=0.03)


def test_a_temperature_of_nothing_fails() -> None:
    with pytest.raises(ValueError, match="0 clips"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))


def test_folding_divides_one_streams_logits() -> None:
    torch.manual_seed(0)
    model = ZorroModel(preset("vit-tiny", num_classes=4, **SMALL)).eval()
    sound = torch.randn(2, 64, 32)
    before = model.forward_stream(Stream.AUDIO, sound)
    fold_temperatures(model, {Stream.AUDIO: 0.5, Stream.VIDEO: 3.0})
    after = model.forward_stream(Stream.AUDIO, sound)
    torch.testing.assert_close(after.logits, before.logits * 2)
    assert torch.equal(after.embedding, before.embedding)


def test_a_stream_without_clips_keeps_its_logits(tmp_path: Path, spec: ClipSpec) -> None:
    torch.manual_seed(0)
    model = ZorroModel(preset("vit-tiny", num_classes=2, **SMALL)).eval()
    weights = {stream: model.heads[stream.key].classify.weight.clone() for stream in Stream}
    items = [
        Item(write_clip(tmp_path / f"{name}.wav", waveform=tone(1.0, hz=hz)), "audio", (name,), "val")
        for name, hz in (("low", 200), ("high", 3000))
    ]
    fitted = calibrate(model, items, {"high": 0, "low": 1}, spec)
    assert fitted["audio"] != 1
    assert (fitted["video"], fitted["fusion"]) == (1, 1)
    assert torch.equal(model.heads["video"].classify.weight, weights[Stream.VIDEO])
    torch.testing.assert_close(model.heads["audio"].classify.weight * fitted["audio"], weights[Stream.AUDIO])
