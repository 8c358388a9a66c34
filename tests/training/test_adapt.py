"""Fine-tuning: what is frozen does not move, rates fall as arithmetic says, LoRA merges into plain
weights."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import Stream, ZorroModel, preset
from models.weights import load_checkpoint, save_checkpoint
from tests.small_models import SMALL
from training.adapt import (
    PARTS,
    absorb_statistics,
    add_lora,
    freeze,
    merge_lora,
    only_stream,
    parameter_groups,
)

AUDIO = torch.randn(4, 64, 32, generator=torch.Generator().manual_seed(1)) * 4 - 8
VIDEO = torch.randint(
    0, 256, (4, 2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
)
RATES = {"weight_decay": 0.1, "learning_rate": 0.01}


def _model(**changes: object) -> ZorroModel:
    torch.manual_seed(0)
    return ZorroModel(
        preset("vit-tiny", num_classes=5, **SMALL | {"stem": "conv", "drop_path_rate": 0.5} | changes)
    )


def _train(
    model: ZorroModel, num_steps: int = 3, *, audio: Tensor | None = AUDIO, video: Tensor | None = VIDEO
) -> None:
    """A few steps as the loop takes them, on all answers that there are."""
    optimizer = torch.optim.AdamW(parameter_groups(model, **RATES))
    for _ in range(num_steps):
        model.train()
        out = model(audio, video)
        answers = [x for x in (out.audio, out.video, out.fusion, out.overall) if x is not None]
        optimizer.zero_grad()
        sum(F.cross_entropy(x.logits, torch.arange(4)) + x.embedding[:, 0].sum() for x in answers).backward()
        optimizer.step()
    model.eval()


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _moved(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_absorbed_statistics_change_numbers_and_no_answer() -> None:
    model = _model()
    _train(model)
    before, answers = _state(model), model(AUDIO, VIDEO)
    absorb_statistics(model)
    after = model(AUDIO, VIDEO)
    for stream in ("audio", "video", "fusion"):
        torch.testing.assert_close(getattr(after, stream).logits, getattr(answers, stream).logits)
    norms = {name for name in before if name.endswith("running_mean")}
    assert norms
    for name in norms:
        stem = name.removesuffix("running_mean")
        assert not model.state_dict()[name].any()
        assert {f"{stem}{part}" for part in ("weight", "bias", "running_var")} <= _moved(before, model)


@pytest.mark.slow
@pytest.mark.parametrize("part", [*PARTS, "trunk:1"])
def test_what_is_frozen_does_not_move_and_the_rest_does(part: str) -> None:
    start = {"trunk:1": "trunk.blocks.0.", "fusion": "fusion_tokens"}.get(part, part + ".")
    model = _model()
    before = _state(model)
    freeze(model, [part])
    _train(model)
    assert _moved(before, model) == {name for name in before if not name.startswith(start)}


def test_statistics_of_a_frozen_stem_stand_still_and_of_another_do_not() -> None:
    model = _model()
    before = _state(model)
    freeze(model, ["audio_tokens"])
    model.train()
    with torch.no_grad():
        model(AUDIO, VIDEO)
    moved = _moved(before, model)
    assert "video_tokens.embed.1.running_mean" in moved
    assert not any(name.startswith("audio_tokens") for name in moved)


def test_eval_mode_of_frozen_parts_survives_train_and_copies() -> None:
    model = _model()
    freeze(model, ["audio_tokens", "trunk:1"])
    for one in (model.train(), copy.deepcopy(model).eval().train()):
        assert not any(m.training for m in (*one.audio_tokens.modules(), *one.trunk.blocks[0].modules()))
        assert all(
            m.training for m in (one, one.trunk, *one.video_tokens.modules(), *one.trunk.blocks[1].modules())
        )


def test_a_part_that_is_frozen_in_pieces_is_frozen() -> None:
    model = _model()
    freeze(model, ["trunk:1"])
    freeze(model, ["trunk:2", "fusion"])
    trained = {
        name
        for name, p in model.named_parameters()
        if p.requires_grad and name.startswith(("trunk", "fusion"))
    }
    assert trained == {"trunk.norm.weight", "trunk.norm.bias"}


@pytest.mark.parametrize("part", ["stem", "trunk:0", "trunk:3", "trunk:x", "trunk:", "blocks", ""])
def test_names_of_no_part_fail_and_freeze_nothing(part: str) -> None:
    model = _model()
    message = f"no part '{part}' to freeze; (there are audio_tokens, .*trunk:N|this trunk has 2 layers)"
    with pytest.raises(ValueError, match=message):
        freeze(model, ["audio_tokens", part])
    assert all(p.requires_grad for p in model.parameters())


def test_one_rate_gives_two_groups_in_the_order_of_the_model() -> None:
    """Decay on matrices and kernels; none on biases, norms, positions, queries and tokens."""
    model = _model()
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, rest = parameter_groups(model, **RATES)
    is_plain = {
        name: name.endswith(".bias")
        or "norm" in name
        or isinstance(model.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d)
        or name.rpartition(".")[2] in ("pos_time", "pos_frequency", "pos_space", "queries", "fusion_tokens")
        for name in names.values()
    }
    assert [names[id(p)] for p in decayed["params"]] == [
        name for name, plain in is_plain.items() if not plain
    ]
    assert [names[id(p)] for p in rest["params"]] == [name for name, plain in is_plain.items() if plain]
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert [(group["scale"], group["lr"]) for group in (decayed, rest)] == [(1.0, 0.01)] * 2


def test_rates_fall_layer_by_layer() -> None:
    model = _model(depth=3)
    groups = parameter_groups(model, **RATES, layer_decay=0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    scale = {names[id(p)]: group["scale"] for group in groups for p in group["params"]}
    assert scale.keys() == set(names.values())
    expected = {
        "audio_tokens": 1 / 16,
        "video_tokens": 1 / 16,
        "fusion_tokens": 1 / 16,
        "trunk.blocks.0": 1 / 8,
        "trunk.blocks.1": 1 / 4,
        "trunk.blocks.2": 1 / 2,
        "trunk.norm": 1,
        "pool": 1,
        "heads": 1,
    }
    for start, value in expected.items():
        assert {scale[name] for name in scale if name.startswith(start)} == {value}, start
    assert all(group["lr"] == 0.01 * group["scale"] for group in groups)
    decay = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    some = ("trunk.blocks.1.qkv.weight", "trunk.blocks.1.qkv.bias", "audio_tokens.pos_time")
    assert [decay[name] for name in some] == [0.1, 0, 0]
    assert {"scale", "lr"} <= torch.optim.AdamW(groups).state_dict()["param_groups"][0].keys()


def test_frozen_weights_are_in_no_group() -> None:
    model = _model()
    freeze(model, ["trunk", "audio_tokens", "video_tokens", "fusion"])
    for layer_decay in (1.0, 0.5):
        groups = parameter_groups(model, **RATES, layer_decay=layer_decay)
        found = {id(p) for group in groups for p in group["params"]}
        assert found == {id(p) for p in (*model.pool.parameters(), *model.heads.parameters())}
        assert {group["scale"] for group in groups} == {1.0}


@pytest.mark.parametrize("layer_decay", [0.0, -0.5, 1.1])
def test_a_decay_that_is_none_fails(layer_decay: float) -> None:
    with pytest.raises(ValueError, match="layer_decay"):
        parameter_groups(_model(), **RATES, layer_decay=layer_decay)


def test_nothing_to_train_fails() -> None:
    model = _model()
    freeze(model, PARTS)
    with pytest.raises(ValueError, match="every weight is frozen"):
        parameter_groups(model, **RATES)


class Towers(nn.Module):
    """Stages of blocks in a tower per modality, as a Swin has, with a reader per stage and latents before
    all."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(2, 2))
        self.towers = nn.ModuleDict({name: self._tower() for name in ("audio", "video")})
        self.readers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
        self.norm = nn.LayerNorm(2)

    def _tower(self) -> nn.ModuleList:
        depths = (2, 1)
        blocks = [
            nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(n)) for n in depths
        ]
        return nn.ModuleList(nn.ModuleDict({"blocks": stage, "merge": nn.Linear(2, 2)}) for stage in blocks)


def test_layers_of_a_trunk_of_towers() -> None:
    model = _model()
    model.trunk = Towers()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, **RATES, layer_decay=0.5)
    scale = {names[id(p)]: group["scale"] for group in groups for p in group["params"]}
    for stage, block, value in ((0, 0, 1 / 8), (0, 1, 1 / 4), (1, 0, 1 / 2)):
        for tower in ("audio", "video"):
            for layer in (0, 1):  # an nn.Sequential is no list of layers
                assert scale[f"trunk.towers.{tower}.{stage}.blocks.{block}.{layer}.weight"] == value
    others = ("latents", "towers.audio.0.merge.weight", "readers.1.bias", "norm.weight")
    assert [scale[f"trunk.{name}"] for name in others] == [1 / 16, 1 / 4, 1 / 2, 1]
    freeze(model, ["trunk:2"])
    assert not any(p.requires_grad for p in model.trunk.towers["audio"][0].parameters())
    assert all(p.requires_grad for p in (*model.trunk.towers["video"][1].parameters(), model.trunk.latents))


def test_a_trunk_that_does_not_say_what_its_layers_are_fails() -> None:
    model = _model()
    model.trunk = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"Sequential has no nn.ModuleList of layers: use layer_decay=1"):
        parameter_groups(model, **RATES, layer_decay=0.5)
    with pytest.raises(ValueError, match=r"no nn.ModuleList"):
        freeze(model, ["trunk:1"])
    assert len(parameter_groups(model, **RATES)) == 2


def _logits(model: ZorroModel) -> Tensor:
    with torch.no_grad():
        out = model.eval()(AUDIO, VIDEO)
    return torch.cat([out.audio.logits, out.video.logits, out.fusion.logits, out.overall.logits])


def test_lora_changes_nothing_at_first_and_alone_is_trained_in_the_trunk() -> None:
    model = _model()
    before = _logits(model)
    names = add_lora(model, 4, 8.0)
    assert names == tuple(f"trunk.blocks.{i}.{name}" for i in range(2) for name in ("qkv", "proj"))
    assert torch.equal(_logits(model), before)
    state = _state(model)
    _train(model)
    trunk = {name for name in _moved(state, model) if name.startswith("trunk.")}
    assert trunk == {f"{name}.parametrizations.weight.0.{part}" for name in names for part in "ab"}
    assert {name for name, p in model.trunk.named_parameters() if p.grad is not None} == {
        name.removeprefix("trunk.") for name in trunk
    }
    assert "heads.audio.classify.weight" in _moved(state, model)


def test_lora_is_the_sum_that_the_paper_writes() -> None:
    model = _model()
    plain = model.trunk.blocks[0].proj.weight.detach().clone()
    add_lora(model, 2, 6.0, suffixes=("proj",))
    low_rank = model.trunk.blocks[0].proj.parametrizations.weight[0]
    nn.init.normal_(low_rank.b)
    expected = plain + 6.0 / 2 * low_rank.b @ low_rank.a
    torch.testing.assert_close(model.trunk.blocks[0].proj.weight, expected)
    assert torch.linalg.matrix_rank(model.trunk.blocks[0].proj.weight.detach() - plain, rtol=1e-4) == 2
    assert nn.utils.parametrize.is_parametrized(model.trunk.blocks[1].proj)
    assert not nn.utils.parametrize.is_parametrized(model.trunk.blocks[0].qkv)


def test_merged_lora_answers_equally_under_the_plain_keys(tmp_path: Path) -> None:
    plain = _model()
    model = copy.deepcopy(plain)
    add_lora(model, 4, 8.0, suffixes=("qkv", "proj", "mlp.0"))
    _train(model, 4)
    before = _logits(model)
    assert (before - _logits(plain)).abs().max() > 1e-2  # it learned something
    merge_lora(model)
    torch.testing.assert_close(_logits(model), before, atol=1e-5, rtol=0)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    assert {type(m) for m in model.modules()} == {type(m) for m in plain.modules()}
    save_checkpoint(tmp_path, model, clip_spec={}, labels=[])
    torch.testing.assert_close(_logits(load_checkpoint(tmp_path).model), before, atol=1e-5, rtol=0)


def test_merging_a_copy_leaves_the_original_to_train_on() -> None:
    """To evaluate within a run.

    Torch's own `remove_parametrizations` breaks the original, whose class the copy shares.
    """
    model = _model()
    add_lora(model, 4, 8.0)
    _train(model)
    merged = copy.deepcopy(model)
    merge_lora(merged)
    torch.testing.assert_close(_logits(merged), _logits(model), atol=1e-5, rtol=0)
    state = _state(model)
    _train(model)
    assert "trunk.blocks.0.qkv.parametrizations.weight.0.b" in _moved(state, model)


def test_lora_with_frozen_embeddings_and_falling_rates() -> None:
    model = _model()
    freeze(model, ["audio_tokens", "video_tokens", "fusion", "pool"])
    add_lora(model, 2, 2.0)
    groups = parameter_groups(model, **RATES, layer_decay=0.5)
    sizes = {group["scale"]: len(group["params"]) for group in groups if group["weight_decay"]}
    assert sizes == {
        0.25: 4,
        0.5: 4,
        1.0: 8,
    }  # A and B of two maps in each block; the two matrices of four heads


def test_lora_that_cannot_be_fails() -> None:
    model = _model()
    with pytest.raises(ValueError, match="no LoRA to merge"):
        merge_lora(model)
    with pytest.raises(ValueError, match="ends in 'kv'; they end in 0, 2, proj, qkv"):
        add_lora(model, 4, 8.0, suffixes=("proj", "kv"))
    for rank in (0, 33):
        with pytest.raises(ValueError, match=f"rank={rank} must lie between 1 and the smaller side of"):
            add_lora(model, rank, 8.0)
    assert all(p.requires_grad for p in model.parameters())
    add_lora(model, 4, 8.0)
    with pytest.raises(ValueError, match="has LoRA already"):
        add_lora(model, 4, 8.0)


@pytest.mark.parametrize(("stream", "other"), [(Stream.AUDIO, "video"), (Stream.VIDEO, "audio")])
def test_one_stream_alone_trains_what_its_answer_reads(stream: Stream, other: str) -> None:
    model = _model()
    before, queries = _state(model), model.pool.queries.detach().clone()
    trained = only_stream(model, stream)
    starts = (f"{stream.key}_tokens.", "trunk.", "pool.", f"heads.{stream.key}.")
    assert set(trained) == {name for name, _ in model.named_parameters() if name.startswith(starts)}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(trained)
    _train(model)
    moved = _moved(before, model)
    assert set(trained) <= moved
    assert not any(
        name.startswith((f"{other}_tokens", f"heads.{other}", "heads.fusion", "fusion_tokens"))
        for name in moved
    )
    assert not model.train().get_submodule(f"{other}_tokens").training
    assert not torch.equal(model.pool.queries[stream], queries[stream])


def test_queries_of_other_streams_get_no_gradient_from_one_stream() -> None:
    model = _model()
    only_stream(model, Stream.AUDIO)
    before = model.pool.queries.detach().clone()
    optimizer = torch.optim.AdamW(parameter_groups(model, **RATES))
    model.train().forward_stream(Stream.AUDIO, AUDIO).logits.square().sum().backward()
    optimizer.step()
    changed = (model.pool.queries != before).any(dim=1)
    assert changed.tolist() == [True, False, False, False]


def test_one_stream_alone_keeps_what_was_frozen_and_takes_lora() -> None:
    model = _model()
    freeze(model, ["audio_tokens"])
    add_lora(model, 2, 2.0)
    trained = only_stream(model, Stream.AUDIO)
    assert {name.split(".")[0] for name in trained} == {"trunk", "pool", "heads"}
    assert all(".parametrizations.weight.0." in name for name in trained if name.startswith("trunk"))


@pytest.mark.parametrize("stream", [Stream.FUSION, Stream.GLOBAL])
def test_streams_that_read_both_are_none_alone(stream: Stream) -> None:
    with pytest.raises(ValueError, match=f"{stream.name} reads both modalities"):
        only_stream(_model(), stream)
