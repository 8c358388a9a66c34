"""What every backbone promises: pure streams bit for bit, missing modalities, gradients, no mixing of items.

Each backbone and stem that a preset uses is tested with small sizes. What a backbone promises besides is in a
file of its own: `test_vit`, `test_swin`, `test_hip`.
"""

import pytest
import torch
from torch import Tensor

from models import PRESETS, Stream, ZorroConfig, ZorroModel, preset
from models.attention import Pairing
from models.heads import StreamOutput
from tests.small_models import DISTINCT_PRESETS, as_if_trained, random_audio, random_video, small_config

OUTPUTS = ("audio", "video", "fusion", "overall")
FIELDS = ("features", "embedding", "logits")


@pytest.fixture(scope="module", params=DISTINCT_PRESETS)
def model(request: pytest.FixtureRequest) -> ZorroModel:
    return as_if_trained(ZorroModel(small_config(request.param)))


@pytest.fixture
def audio(model: ZorroModel) -> Tensor:
    return random_audio(model.config)


@pytest.fixture
def video(model: ZorroModel) -> Tensor:
    return random_video(model.config)


def assert_equal_bits(one: StreamOutput | None, other: StreamOutput | None) -> None:
    assert one is not None
    assert other is not None
    for name in FIELDS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("name", PRESETS)
def test_shapes_at_full_size(name: str) -> None:
    """On the meta device, where a tensor has a shape but no memory."""
    config = preset(name, num_classes=527)
    with torch.device("meta"):
        out = ZorroModel(config)(
            torch.empty(2, *config.audio_shape), torch.empty(2, *config.video_shape, dtype=torch.uint8)
        )
    for output in (out.audio, out.video, out.fusion, out.overall):
        assert output.features.shape == (2, config.features_dim)
        assert output.embedding.shape == (2, config.projection_dim)
        assert output.logits.shape == (2, 527)


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_its_dict(name: str) -> None:
    config = preset(name, num_classes=30, drop_path_rate=0.1)
    assert ZorroConfig.from_dict(config.to_dict()) == config


def test_shapes(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    out = model(audio, video)
    for output in (getattr(out, name) for name in OUTPUTS):
        assert output.features.shape == (4, model.config.features_dim)
        assert output.embedding.shape == (4, 16)
        assert output.logits.shape == (4, 5)
        assert output.present.tolist() == [True] * 4


def test_embeddings_have_unit_length(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    out = model(audio, video)
    for name in OUTPUTS:
        torch.testing.assert_close(getattr(out, name).embedding.norm(dim=-1), torch.ones(4))


def test_the_audio_output_does_not_depend_on_the_video(
    model: ZorroModel, audio: Tensor, video: Tensor
) -> None:
    before = model(audio, video)
    for other in (255 - video, None, torch.full(video.shape, torch.nan), video.flip(0)):
        after = model(audio, other)
        assert_equal_bits(before.audio, after.audio)
        assert not torch.equal(before.fusion.logits, after.fusion.logits)


def test_the_video_output_does_not_depend_on_the_audio(
    model: ZorroModel, audio: Tensor, video: Tensor
) -> None:
    before = model(audio, video)
    for other in (audio * 2, None, torch.full_like(audio, torch.nan)):
        after = model(other, video)
        assert_equal_bits(before.video, after.video)
        assert not torch.equal(before.fusion.logits, after.fusion.logits)


def test_a_stream_alone_gives_the_same_bits(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    out = model(audio, video)
    assert_equal_bits(model.forward_stream(Stream.AUDIO, audio), out.audio)
    assert_equal_bits(model.forward_stream(Stream.VIDEO, video), out.video)


def test_a_stream_alone_uses_only_its_own_weights_of_a_separable_trunk(
    model: ZorroModel, audio: Tensor, video: Tensor
) -> None:
    names = [name for name, _ in model.trunk.named_parameters()]
    used = {}
    for stream, x in ((Stream.AUDIO, audio), (Stream.VIDEO, video)):
        model.zero_grad()
        model.forward_stream(stream, x).logits.square().sum().backward()
        used[stream] = {name for name, p in model.trunk.named_parameters() if p.grad is not None}
        assert used[stream] == {
            n for n, p in model.trunk.named_parameters() if p.grad is not None and p.grad.any()
        }
        own = {name for name in names if _stream_of(name) == stream.key}
        assert used[stream] == (own if model.trunk.separable else set(names)) != set()
    assert bool(used[Stream.AUDIO] & used[Stream.VIDEO]) != model.trunk.separable


def _stream_of(name: str) -> str | None:
    """The first stream in a weight's name: `stages.0.fusion.kv.audio.weight` belongs to fusion."""
    return next((part for part in name.split(".") if part in ("audio", "video", "fusion")), None)


def test_fusion_reads_both_and_gradients_across_streams_are_none(
    model: ZorroModel, audio: Tensor, video: Tensor
) -> None:
    audio, pixels = audio.requires_grad_(), video.float().requires_grad_()
    out = model(audio, pixels)
    for output, own, other in ((out.audio, audio, pixels), (out.video, pixels, audio)):
        gradients = torch.autograd.grad(
            output.logits.sum(), (own, other), retain_graph=True, allow_unused=True
        )
        assert gradients[0].abs().max() > 0
        assert gradients[1] is None
    for output in (out.fusion, out.overall):
        for gradient in torch.autograd.grad(output.logits.sum(), (audio, pixels), retain_graph=True):
            assert gradient.abs().max() > 0


def test_a_mixed_batch_equals_its_samples(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    has_audio = torch.tensor([True, False, True, True])
    has_video = torch.tensor([True, True, False, True])
    audio[1], filled = torch.nan, video.float()
    filled[2] = torch.nan  # what a row holds of a modality that it lacks does not matter
    out = model(audio, filled, has_audio=has_audio, has_video=has_video)
    assert out.audio.present.tolist() == has_audio.tolist()
    assert out.video.present.tolist() == has_video.tolist()
    for i in range(4):
        alone = model(audio[i : i + 1] if has_audio[i] else None, filled[i : i + 1] if has_video[i] else None)
        for name in OUTPUTS:
            row, single = getattr(out, name), getattr(alone, name)
            if single is None:
                assert not any(getattr(row, field)[i].any() for field in FIELDS)
            else:
                torch.testing.assert_close(row.logits[i], single.logits[0], atol=2e-5, rtol=1e-4)


def test_one_item_serves_many_fusion_rows(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    pairing = Pairing(torch.tensor([0, 0, -1]), torch.tensor([1, -1, 1]))
    out = model.forward_pairs(audio[:1], video[:2], pairing)
    assert out.audio is not None
    assert out.audio.logits.shape[0] == 1
    expected = (model(audio[:1], video[1:2]), model(audio[:1]), model(None, video[1:2]))
    for row, single in zip(out.fusion.logits, expected, strict=True):
        torch.testing.assert_close(row, single.fusion.logits[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("stream", [Stream.AUDIO, Stream.VIDEO])
def test_items_of_a_batch_do_not_mix(stream: Stream, model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    embed = {Stream.AUDIO: model.audio_tokens, Stream.VIDEO: model.video_tokens}[stream]
    tokens = torch.randn_like(embed({Stream.AUDIO: audio, Stream.VIDEO: video}[stream])[:3])
    before = model.trunk({stream: tokens}, None)[stream]
    other = tokens.clone()
    other[1] = torch.nan
    after = model.trunk({stream: other}, None)[stream]
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert after[1].isnan().all()


def test_attention_for_gradients_and_attention_without_are_equal(
    model: ZorroModel, audio: Tensor, video: Tensor
) -> None:
    """On a CPU the one is written out and the other fused; a pairing masks keys in both."""
    has_audio, has_video = torch.tensor([True, True, False, True]), torch.tensor([True, False, True, True])
    written_out = model(audio, video, has_audio=has_audio, has_video=has_video)
    with torch.no_grad():
        fused = model(audio, video, has_audio=has_audio, has_video=has_video)
    for name in OUTPUTS:
        torch.testing.assert_close(
            getattr(written_out, name).logits, getattr(fused, name).logits, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("name", DISTINCT_PRESETS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(3)
    model = ZorroModel(small_config(name, drop_path_rate=0.1)).train()
    out = model(random_audio(model.config), random_video(model.config))
    outputs = [getattr(out, name) for name in OUTPUTS]
    sum((x.logits**2).sum() + x.embedding[:, 0].sum() for x in outputs).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_bad_input_fails(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    with pytest.raises(ValueError, match="got neither"):
        model()
    with pytest.raises(ValueError, match="audio has shape"):
        model(audio[:, :32])
    with pytest.raises(ValueError, match="video has shape"):
        model(audio, video[:, :, :16])
    with pytest.raises(ValueError, match="one row per clip; got 4 and 3"):
        model(audio, video[:3])
    nobody = torch.zeros(4).bool()
    with pytest.raises(ValueError, match="every row needs audio or video"):
        model(audio, video, has_audio=nobody, has_video=nobody)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("vit-tiny", 3, 6),
        ("vit-small", 20, 30),
        ("vit-base", 85, 100),
        ("vit-large", 300, 330),
        ("hip-mini", 10, 25),
        ("hip-16", 90, 110),
    ],
)
def test_presets_have_their_size(name: str, low: float, high: float) -> None:
    """In millions of parameters; the sizes of Swin are derived in `test_swin`."""
    with torch.device("meta"):
        model = ZorroModel(preset(name, num_classes=30))
    assert low < sum(p.numel() for p in model.parameters()) / 1e6 < high
