"""Every registered preset keeps every promise: shapes, gradients, purity, missing modalities, export, and being served.

At full size on the meta device, where a tensor is its shape alone; for the rest each preset's wiring with
small numbers, once for those that differ in size alone.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.bundle_writer import ExportOptions, export_checkpoint
from media import ClipSpec
from models import PRESETS, BackboneName, Stream, ZorroConfig, ZorroModel, preset
from models.weights import load_checkpoint, save_checkpoint
from service.app import create_app
from service.settings import Settings
from tests.service.ready_client import ready_client

NUM_CLASSES = 4
SHAPES = {
    "audio_shape": (64, 32), "video_shape": (2, 32, 32, 3), "num_fusion_tokens": 3, "projection_dim": 16, "embed_dim": 32,
}  # fmt: skip
WIRING = {
    BackboneName.VIT: {"patch_size": (16, 16), "tubelet_size": (2, 16, 16), "depth": 2, "num_heads": 2},
    BackboneName.SWIN: {"patch_size": (4, 4), "tubelet_size": (1, 4, 4), "embed_dim": 16, "num_heads": 2, "swin": {
        "depths": (2, 2), "audio_window": (4, 4), "video_window": (2, 4, 4)}},
    BackboneName.HIP: {"patch_size": (16, 8), "tubelet_size": (2, 8, 8), "num_heads": 2, "hip": {
        "num_groups": (4, 1), "num_latents": (3, 5), "dims": (16, 32), "depths": (1, 1), "num_heads": (2, 2)}},
}  # fmt: skip


def small(name: str) -> ZorroConfig:
    """The preset's backbone and stem, with small numbers."""
    backbone = preset(name, num_classes=NUM_CLASSES).backbone
    return preset(name, num_classes=NUM_CLASSES, **SHAPES | WIRING[backbone])


DISTINCT = list({small(name): name for name in PRESETS}.values())


@pytest.fixture(scope="module", params=DISTINCT)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are as if trained: no zero biases, no small weights."""
    torch.manual_seed(0)
    model = ZorroModel(small(request.param))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp(request.param)
    spec = ClipSpec(num_mel_frames=64, num_mel_bins=32, num_video_frames=2, frame_size=32)
    labels = [{"id": x, "label": x.upper(), "modalities": ["audio", "video"]} for x in "abcd"]
    save_checkpoint(folder, model, clip_spec=spec.to_dict(), labels=labels)
    return folder


@pytest.fixture
def model(checkpoint: Path) -> ZorroModel:
    return load_checkpoint(checkpoint).model


@pytest.fixture
def audio() -> Tensor:
    return torch.randn(3, 64, 32, generator=torch.Generator().manual_seed(1)) * 4 - 8


@pytest.fixture
def video() -> Tensor:
    return torch.randint(
        0, 256, (3, 2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )


@pytest.mark.parametrize("name", PRESETS)
def test_full_size_shapes(name: str) -> None:
    config = preset(name, num_classes=527)
    with torch.device("meta"):
        out = ZorroModel(config)(
            torch.empty(2, *config.audio_shape), torch.empty(2, *config.video_shape, dtype=torch.uint8)
        )
    for answer in (out.audio, out.video, out.fusion, out.overall):
        assert answer.features.shape == (2, config.features_dim)
        assert answer.embedding.shape == (2, config.projection_dim)
        assert answer.logits.shape == (2, 527)


@pytest.mark.parametrize("name", DISTINCT)
def test_every_parameter_gets_a_gradient(name: str, audio: Tensor, video: Tensor) -> None:
    torch.manual_seed(3)
    model = ZorroModel(small(name)).train()
    out = model(audio, video)
    sum(
        (a.logits**2).sum() + a.embedding[:, 0].sum() for a in (out.audio, out.video, out.fusion, out.overall)
    ).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_purity_is_bit_for_bit(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    both = model(audio, video)
    for other in (None, 255 - video, torch.full(video.shape, torch.nan)):
        assert torch.equal(both.audio.logits, model(audio, other).audio.logits)
    for other in (None, audio * 2, torch.full_like(audio, torch.nan)):
        assert torch.equal(both.video.embedding, model(other, video).video.embedding)
    assert not torch.equal(both.fusion.logits, model(audio, 255 - video).fusion.logits)
    assert not torch.equal(both.fusion.logits, model(audio * 2, video).fusion.logits)
    assert torch.equal(both.audio.features, model.forward_stream(Stream.AUDIO, audio).features)


def test_a_missing_modality_is_absent(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    has_audio, has_video = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    out = model(audio, video, has_audio=has_audio, has_video=has_video)
    assert not out.audio.logits[1].any()
    assert not out.video.logits[2].any()
    alone = model(None, video[1:2]).fusion.logits[0], model(audio[2:3]).fusion.logits[0]
    for row, single in zip(out.fusion.logits[1:], alone, strict=True):
        torch.testing.assert_close(row, single, atol=2e-5, rtol=1e-4)


def test_separable_towers_share_no_weights_of_the_trunk(
    model: ZorroModel, audio: Tensor, video: Tensor
) -> None:
    used = {}
    for stream, x in ((Stream.AUDIO, audio), (Stream.VIDEO, video)):
        model.zero_grad()
        model.forward_stream(stream, x).logits.square().sum().backward()
        used[stream] = {n for n, p in model.trunk.named_parameters() if p.grad is not None and p.grad.any()}
    assert used[Stream.AUDIO]
    assert bool(used[Stream.AUDIO] & used[Stream.VIDEO]) != model.trunk.separable


def test_a_bundle_is_proven_and_served(checkpoint: Path, tmp_path: Path, film: Path) -> None:
    """The exporter refuses what is not equal to the model, not pure, or not for TensorRT; then a server answers."""
    export_checkpoint(
        checkpoint,
        tmp_path / "small" / "1",
        name="small",
        version="1",
        options=ExportOptions(variants=("fp32", "fp16")),
    )
    with ready_client(create_app(Settings(bundles=tmp_path, num_decode_workers=1))) as client:
        answer = client.post("/v1/classify", files={"file": film.read_bytes()}).json()
    assert answer["streams"] == dict.fromkeys(("audio", "video", "fused"), "answered")
