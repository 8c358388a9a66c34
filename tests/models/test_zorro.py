"""Zorro's promises: purity bit for bit, equality with the dense mask, missing modalities."""

import pytest
import torch
from torch import Tensor

from models import Stream, ZorroModel, preset
from models.attention import Pairing
from models.mask import POOL_READS, zorro_mask
from tests.conftest import SMALL

BATCH = 4


@pytest.fixture(scope="module", params=["patch", "conv"])
def model(request: pytest.FixtureRequest) -> ZorroModel:
    torch.manual_seed(0)
    model = ZorroModel(preset("vit-tiny", num_classes=5, **SMALL | {"stem": request.param}))
    for parameter in model.parameters():  # as if trained: no zero biases, no small weights
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def audio() -> Tensor:
    return torch.randn(BATCH, 64, 32, generator=torch.Generator().manual_seed(1)) * 4 - 8


@pytest.fixture
def video() -> Tensor:
    return torch.randint(
        0, 256, (BATCH, 2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )


def _others(video: Tensor) -> list[Tensor | None]:
    return [255 - video, None, torch.full(video.shape, torch.nan), video.flip(0)]


def test_audio_cannot_have_seen_the_picture(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    before = model(audio, video).audio
    for other in _others(video):
        after = model(audio, other).audio
        for answer in ("features", "embedding", "logits"):
            assert torch.equal(getattr(before, answer), getattr(after, answer))


def test_video_cannot_have_heard_the_sound(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    before = model(audio, video).video
    for other in (None, torch.full_like(audio, torch.nan), audio * 2):
        after = model(other, video).video
        for answer in ("features", "embedding", "logits"):
            assert torch.equal(getattr(before, answer), getattr(after, answer))


def test_a_stream_alone_gives_the_same_bits(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    assert torch.equal(model.forward_stream(Stream.AUDIO, audio).logits, model(audio, video).audio.logits)
    assert torch.equal(model.forward_stream(Stream.VIDEO, video).logits, model(audio, video).video.logits)


def test_cross_gradients_are_exactly_zero_and_fusions_are_not(
    model: ZorroModel, audio: Tensor, video: Tensor
) -> None:
    sound, sight = audio.requires_grad_(), video.float().requires_grad_()
    out = model(sound, sight)
    for answer, own, other in ((out.audio, sound, sight), (out.video, sight, sound)):
        gradients = torch.autograd.grad(
            answer.logits.sum(), (own, other), retain_graph=True, allow_unused=True
        )
        assert gradients[0].abs().max() > 0
        assert gradients[1] is None or not gradients[1].any()
    for answer in (out.fusion, out.overall):
        for gradient in torch.autograd.grad(answer.logits.sum(), (sound, sight), retain_graph=True):
            assert gradient.abs().max() > 0


def test_equals_attention_under_the_dense_mask(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    out = model(audio, video)
    expected = _dense_reference(model, audio, video)
    answers = (out.audio, out.video, out.fusion, out.overall)
    for stream, answer in zip(Stream, answers, strict=True):
        torch.testing.assert_close(answer.features, expected[stream], atol=2e-5, rtol=1e-4)


def _dense_reference(model: ZorroModel, audio: Tensor, video: Tensor) -> dict[Stream, Tensor]:
    """One sequence of all tokens, one N x N mask, textbook attention."""
    parts = {
        Stream.AUDIO: model.audio_tokens(audio),
        Stream.VIDEO: model.video_tokens(video),
        Stream.FUSION: model.fusion_tokens.expand(len(audio), -1, -1),
    }
    x = torch.cat(list(parts.values()), dim=1)
    stream_of_token = torch.cat([torch.full((part.shape[1],), int(stream)) for stream, part in parts.items()])
    mask = zorro_mask(stream_of_token)
    heads = model.config.num_heads

    def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
        q, k, v = (y.reshape(*y.shape[:2], heads, -1).transpose(1, 2) for y in (q, k, v))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(len(x), q.shape[2], -1)

    for block in model.trunk.blocks:
        q, k, v = block.qkv(block.norm1(x)).chunk(3, -1)
        x = x + block.proj(attend(q, k, v, mask))
        x = x + block.mlp(block.norm2(x))
    x = model.trunk.norm(x)
    found = {}
    for stream, read in POOL_READS.items():
        allowed = torch.isin(stream_of_token, torch.tensor([int(s) for s in read]))[None]
        k, v = model.pool.kv(x).chunk(2, -1)
        q = model.pool.q(model.pool.queries[int(stream)]).expand(len(x), 1, -1)
        found[stream] = model.pool.norm(model.pool.proj(attend(q, k, v, allowed))[:, 0])
    return found


def test_a_mixed_batch_equals_its_samples(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    has_audio = torch.tensor([True, False, True, True])
    has_video = torch.tensor([True, True, False, True])
    audio[1], filled = torch.nan, video.float()
    filled[2] = torch.nan  # what an absent row holds does not matter
    out = model(audio, filled, has_audio=has_audio, has_video=has_video)
    assert out.audio.present.tolist() == has_audio.tolist()
    assert not out.audio.logits[1].any()
    assert not out.video.embedding[2].any()
    for i in range(BATCH):
        alone = model(audio[i : i + 1] if has_audio[i] else None, filled[i : i + 1] if has_video[i] else None)
        for name in ("audio", "video", "fusion", "overall"):
            if (single := getattr(alone, name)) is not None:
                torch.testing.assert_close(
                    getattr(out, name).logits[i], single.logits[0], atol=2e-5, rtol=1e-4
                )


def test_one_item_serves_many_fusion_rows(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    pairing = Pairing(torch.tensor([0, 0, -1]), torch.tensor([1, -1, 1]))
    out = model.forward_pairs(audio[:1], video[:2], pairing)
    assert out.audio.logits.shape[0] == 1
    expected = (model(audio[:1], video[1:2]), model(audio[:1]), model(None, video[1:2]))
    for row, single in zip(out.fusion.logits, expected, strict=True):
        torch.testing.assert_close(row, single.fusion.logits[0], atol=2e-5, rtol=1e-4)


def test_every_parameter_gets_a_gradient(audio: Tensor, video: Tensor) -> None:
    model = ZorroModel(preset("vit-tiny", num_classes=5, **SMALL, drop_path_rate=0.1)).train()
    torch.manual_seed(3)
    out = model(audio, video)
    answers = (out.audio, out.video, out.fusion, out.overall)
    sum((a.logits**2).sum() + a.embedding[:, 0].sum() for a in answers).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_attention_for_gradients_and_attention_without_are_equal(audio: Tensor, video: Tensor) -> None:
    """On a CPU the one is written out and the other fused; a pairing masks keys in both."""
    torch.manual_seed(0)
    model = ZorroModel(preset("vit-tiny", num_classes=5, **SMALL)).eval()
    has_audio, has_video = torch.tensor([True, True, False, True]), torch.tensor([True, False, True, True])
    written_out = model(audio, video, has_audio=has_audio, has_video=has_video)
    with torch.no_grad():
        fused = model(audio, video, has_audio=has_audio, has_video=has_video)
    for name in ("audio", "video", "fusion", "overall"):
        torch.testing.assert_close(
            getattr(written_out, name).logits, getattr(fused, name).logits, atol=1e-5, rtol=1e-4
        )


def test_embeddings_have_unit_length(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    for answer in (model(audio, video).audio, model(audio, video).fusion):
        torch.testing.assert_close(answer.embedding.norm(dim=-1), torch.ones(BATCH))


def test_bad_input_fails(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    with pytest.raises(ValueError, match="got neither"):
        model()
    with pytest.raises(ValueError, match="audio has shape"):
        model(audio[:, :32])
    with pytest.raises(ValueError, match="one row per clip; got 4 and 3"):
        model(audio, video[:3])
    with pytest.raises(ValueError, match="every row needs audio or video"):
        model(audio, video, has_audio=torch.zeros(BATCH).bool(), has_video=torch.zeros(BATCH).bool())


@pytest.mark.parametrize("name", ["vit-tiny", "vit-small", "vit-base", "vit-large"])
def test_presets_build(name: str) -> None:
    with torch.device("meta"):
        model = ZorroModel(preset(name, num_classes=30))
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    low, high = {"vit-tiny": (3, 6), "vit-small": (20, 30), "vit-base": (85, 100), "vit-large": (300, 330)}[
        name
    ]
    assert low < parameters < high
