"""What fine-tuning changes about a model.

Here are parts that stand still, rates that fall layer by layer, LoRA, and training of one stream alone.

All of it is set before the optimizer is made and asks nothing of the loop: a module with nothing left to
train stays in eval mode even under `model.train()`, so the batch norms of a frozen stem keep their
statistics.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.mask import Stream
from models.zorro import ZorroModel

PARTS = {
    "audio_tokens": ("audio_tokens.",), "video_tokens": ("video_tokens.",), "fusion": ("fusion_tokens",),
    "trunk": ("trunk.",), "pool": ("pool.",), "heads": ("heads.", "stem_classifiers."),
}  # fmt: skip
"""Parts that `freeze` knows, and how the names of their weights begin.

Beside them `trunk:N`, the first N layers.
"""

PLAIN = ("pos_", "queries", "fusion_tokens")
"""Words in the names of weights that get no decay, as biases and norms get none."""


def freeze(model: ZorroModel, parts: Iterable[str]) -> None:
    """Keep parts of a model as they are: no gradients, and eval mode for good.

    Args:
        model: a Zorro of any backbone.
        parts: names in `PARTS`, or `trunk:N` for the first N layers of the trunk.

    Raises:
        ValueError: a name is unknown; the message lists the known ones.
    """
    names = {name for part in parts for name in _weights_of(model, part)}
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    _hold_still(model)


def freeze_statistics(model: ZorroModel) -> None:
    """Keep the means and variances of all batch norms, whose weights go on learning.

    Batches of a dozen clips would spoil what an imported network has from millions.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _stay_in_eval(module)


@torch.no_grad()
def absorb_statistics(model: ZorroModel) -> None:
    """Take the means and variances of all batch norms into their weights and biases: the same answers.

    What is left of a mean is 0, and of a variance all but 1. So weights that start from a published network
    and are trained with its statistics hold none of its numbers.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.div_((module.running_var + module.eps).sqrt())
            module.bias.sub_(module.weight * module.running_mean)
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)


def only_stream(model: ZorroModel, stream: Stream) -> tuple[str, ...]:
    """Freeze all that the answer of one unimodal stream does not depend on.

    Return the names of what is still trained.

    What an answer depends on is asked of autograd, not of names, so it holds for trunks whose weights the
    streams share and for those with a tower each. The query of the other streams lies in a shared weight and
    gets a gradient of zero.

    Raises:
        ValueError: fusion and global read both modalities.
    """
    shapes = {Stream.AUDIO: model.config.audio_shape, Stream.VIDEO: model.config.video_shape}
    if stream not in shapes:
        raise ValueError(f"{stream.name} reads both modalities; one stream alone is AUDIO or VIDEO")
    twin = copy.deepcopy(model).eval()
    trained = {name: parameter for name, parameter in twin.named_parameters() if parameter.requires_grad}
    x = torch.zeros(1, *shapes[stream], device=model.fusion_tokens.device)
    with torch.enable_grad():
        answer = twin.forward_stream(stream, x)
        read = answer.logits.sum() + answer.embedding.sum()
    gradients = torch.autograd.grad(read, list(trained.values()), allow_unused=True)
    names = tuple(name for name, gradient in zip(trained, gradients, strict=True) if gradient is not None)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    _hold_still(model)
    return names


def _weights_of(model: ZorroModel, part: str) -> list[str]:
    if part in PARTS:
        return [name for name, _ in model.named_parameters() if name.startswith(PARTS[part])]
    kind, _, count = part.partition(":")
    if kind == "trunk" and count.isdecimal():
        levels, num_layers = _trunk_levels(model.trunk)
        if 1 <= int(count) <= num_layers:
            return [f"trunk.{name}" for name, level in levels.items() if 1 <= level <= int(count)]
        raise ValueError(f"no part {part!r} to freeze; this trunk has {num_layers} layers")
    raise ValueError(
        f"no part {part!r} to freeze; there are {', '.join(PARTS)}, and trunk:N for its first N layers"
    )


def _hold_still(model: nn.Module) -> None:
    """Eval mode, for good, for every module that has weights and trains none of them."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            _stay_in_eval(module)


def _stay_in_eval(module: nn.Module) -> None:
    module.eval()
    # A method of this one instance: `train` of a parent calls it, and a deep copy binds it to the copy.
    module.train = MethodType(_stay, module)  # type: ignore[method-assign]  # shadows it on purpose


def _stay(module: nn.Module, _mode: bool = True) -> nn.Module:
    return module


def parameter_groups(
    model: ZorroModel, *, weight_decay: float, learning_rate: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer, with rates that fall layer by layer.

    Rates fall by `layer_decay` per layer from the heads down, as in BEiT and MAE.

    Heads, pool and the trunk's last norm learn at the full rate, the deepest layer at `layer_decay` of it,
    and so on down to the embeddings. Weight decay is on matrices and kernels; none on biases, norms,
    positions, queries and tokens. Frozen weights are in no group.

    Args:
        model: frozen or given LoRA before, if at all.
        weight_decay: of the weights that have any.
        learning_rate: of the heads, where a schedule begins.
        layer_decay: 1 gives two groups, with decay and without; 0.65 to 0.9 are usual for fine-tuning.

    Returns:
        `params`, `weight_decay`, `lr`, and `scale`, by which a schedule multiplies its rate for the group.

    Raises:
        ValueError: `layer_decay` lies outside (0, 1], everything is frozen, or the trunk does not say what
            its layers are.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"{layer_decay=} must lie in (0, 1]")
    levels = {} if layer_decay == 1 else _levels(model)
    top = max(levels.values(), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((levels.get(name, 0), _is_plain(name, parameter)), []).append(parameter)
    if not groups:
        raise ValueError("nothing to train: every weight is frozen")
    return [
        {
            "params": groups[level, is_plain],
            "weight_decay": 0.0 if is_plain else weight_decay,
            "lr": learning_rate * layer_decay ** (top - level),
            "scale": layer_decay ** (top - level),
        }
        for level, is_plain in sorted(groups)
    ]


def _is_plain(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() < 2 or any(word in name for word in PLAIN)


def _levels(model: ZorroModel) -> dict[str, int]:
    """Level of every weight.

    It is 0 for embeddings, 1 and up for the trunk's layers, and one more for all after them.
    """
    inside, num_layers = _trunk_levels(model.trunk)
    levels = {f"trunk.{name}": level for name, level in inside.items()}
    for name, _ in model.named_parameters():
        levels.setdefault(name, num_layers + 1 if name.startswith(("pool.", "heads.")) else 0)
    return levels


def _trunk_levels(trunk: nn.Module) -> tuple[dict[str, int], int]:
    """Level of every weight of a trunk, and the number of its layers.

    A layer is a place: the indices of the `nn.ModuleList`s on the way to a weight, so `blocks.3.qkv.weight`
        is of layer (3), and stage 1, block 0 of an audio tower and of a video tower are one layer. A weight
        of a stage but of none of its blocks goes with the last of them. Weights in no list are level 0 where
        they are registered before the lists, such as learned latents, and above the layers where they come
        after, such as the last norm.
    """
    places = _places(trunk)
    found = {place for place in places.values() if place}
    if not found:
        raise ValueError(
            f"{type(trunk).__name__} has no nn.ModuleList of layers: use layer_decay=1, freeze it whole or "
            "not"
        )
    layers = sorted(
        place for place in found if not any(_is_within(other, place) for other in found - {place})
    )
    levels, has_begun = {}, False
    for name, place in places.items():
        has_begun = has_begun or bool(place)
        if place:
            levels[name] = 1 + max(i for i, layer in enumerate(layers) if _is_within(layer, place))
        else:
            levels[name] = len(layers) + 1 if has_begun else 0
    return levels, len(layers)


def _places(trunk: nn.Module) -> dict[str, tuple[int, ...]]:
    # By exact type: the list of a parametrization is a ModuleList too, and no layer.
    lists = {name for name, module in trunk.named_modules() if type(module) is nn.ModuleList}
    places = {}
    for name, _ in trunk.named_parameters():
        path = name.split(".")
        places[name] = tuple(int(path[i]) for i in range(1, len(path)) if ".".join(path[:i]) in lists)
    return places


def _is_within(place: tuple[int, ...], outer: tuple[int, ...]) -> bool:
    return place[: len(outer)] == outer


class LowRank(nn.Module):
    """W + alpha / rank * B A, as a parametrization of W; B begins as zeros, so nothing changes at first."""

    def __init__(self, weight: Tensor, *, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape
        if not 1 <= rank <= min(rows, columns):
            raise ValueError(f"{rank=} must lie between 1 and the smaller side of {rows} x {columns}")
        self.scale = alpha / rank
        self.a = nn.Parameter(nn.init.kaiming_uniform_(weight.new_empty(rank, columns), a=math.sqrt(5)))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight to use in place of `weight`."""
        return weight + self.scale * (self.b @ self.a)


def add_lora(
    model: ZorroModel, rank: int, alpha: float, *, suffixes: Sequence[str] = ("qkv", "proj")
) -> tuple[str, ...]:
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685) of the trunk.

    Returns the names of the maps that have it.

    The whole trunk is frozen and its chosen linear maps learn A and B alone; the other parts are as they
    were, so that new heads learn: see `freeze` for those that shall not. A parametrization of torch, because
    peft would bring transformers, accelerate and more for these few lines. Its price is that the sum is made
    at every use of a weight; under `torch.nn.utils.parametrize.cached()` it is made once per step.

    Args:
        model: changed in place; call `merge_lora` before it is saved or exported.
        rank: of B A.
        alpha: B A is scaled by alpha / rank.
        suffixes: how the names of the trunk's linear maps end, by whole words between dots.

    Raises:
        ValueError: the model has LoRA already, a suffix fits no linear map, or the rank fits none.
    """
    if _adapted(model):
        raise ValueError("the model has LoRA already; merge_lora first")
    maps = {
        f"trunk.{name}": module
        for name, module in model.trunk.named_modules()
        if isinstance(module, nn.Linear)
    }
    for suffix in suffixes:
        if not any(f".{name}".endswith(f".{suffix}") for name in maps):
            ends = sorted({name.rpartition(".")[2] for name in maps})
            raise ValueError(f"no linear map of the trunk ends in {suffix!r}; they end in {', '.join(ends)}")
    chosen = {
        name: m for name, m in maps.items() if any(f".{name}".endswith(f".{suffix}") for suffix in suffixes)
    }
    low_ranks = {name: LowRank(module.weight, rank=rank, alpha=alpha) for name, module in chosen.items()}
    model.trunk.requires_grad_(False)
    for name, low_rank in low_ranks.items():
        parametrize.register_parametrization(chosen[name], "weight", low_rank)
    return tuple(chosen)


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Fold B A into the weights, with the same answers and the plain keys again; what was frozen stays so.

    Raises:
        ValueError: the model has no LoRA.
    """
    adapted = _adapted(model)
    if not adapted:
        raise ValueError("the model has no LoRA to merge")
    for linear in adapted:
        weight = linear.parametrizations.weight.original
        weight.copy_(linear.weight)
        # Not torch's remove_parametrizations: that changes the class, which deep copies share, and would
        # break the others.
        del linear.parametrizations
        linear.__class__ = type(linear).__bases__[0]
        linear.weight = weight


def _adapted(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if _is_adapted(module)]


def _is_adapted(module: nn.Module) -> bool:
    if not parametrize.is_parametrized(module, "weight"):
        return False
    assert isinstance(module.parametrizations, nn.ModuleDict)
    of_weight = module.parametrizations["weight"]
    return isinstance(of_weight, parametrize.ParametrizationList) and isinstance(of_weight[0], LowRank)
