"""Zorro-ViT: equal to textbook attention of one sequence under the dense mask."""

import pytest
import torch
from torch import Tensor

from models import Stream, ZorroModel
from models.mask import POOL_READS, zorro_mask
from tests.small_models import as_if_trained, random_audio, random_video, small_config


@pytest.mark.parametrize("name", ["vit-tiny", "vit-small"])  # stems conv and patch
def test_equals_attention_under_the_dense_mask(name: str) -> None:
    model = as_if_trained(ZorroModel(small_config(name)))
    audio, video = random_audio(model.config), random_video(model.config)
    out = model(audio, video)
    expected = _dense_reference(model, audio, video)
    outputs = (out.audio, out.video, out.fusion, out.overall)
    for stream, output in zip(Stream, outputs, strict=True):
        torch.testing.assert_close(output.features, expected[stream], atol=2e-5, rtol=1e-4)


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
