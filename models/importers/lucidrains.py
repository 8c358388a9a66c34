"""Read state dicts of zorro-pytorch 0.1.1 into a `LucidrainsZorro`.

The sizes (width, depth, hidden width, fusion tokens) are read from the weights; what the weights do not tell
is in `LucidrainsConfig`.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from models.weights import CheckpointError, mismatches

from .lucidrains_zorro import Compat, LucidrainsConfig, LucidrainsZorro

_WINDOW = "spec.window"
_SEQUENCE = {"0": "1", "1": "2", "2": "3"}  # the package's sequence begins with the cutting into patches


def import_lucidrains(
    state_dict: Mapping[str, Tensor], config: LucidrainsConfig, *, compat: Compat
) -> LucidrainsZorro:
    """The model of a zorro-pytorch 0.1.1 state dict, in eval mode and float32.

    Args:
        state_dict: of the package's `Zorro`. From a file: `torch.load(path, map_location="cpu",
            weights_only=True)`, which runs no code from the file. `spec.window` is dropped.
        config: what the weights do not tell.
        compat: the pool mask as it was meant, or as the package has it, which leaks.

    Raises:
        CheckpointError: keys or shapes are not those of the package under `config` (the message lists them),
            a layer norm has a bias that is not zero, or the window has another length than
            `config.win_length`.
    """
    model = LucidrainsZorro(config, **_sizes_of(state_dict), compat=compat)
    own = model.state_dict()
    name_in_file = {name: _package_name(name) for name in own}
    wanted = {name_in_file[name]: tuple(tensor.shape) for name, tensor in own.items()}
    # Layer norms of the package have a bias that is not a parameter and is always zero.
    betas = {
        name[: -len("gamma")] + "beta": shape for name, shape in wanted.items() if name.endswith(".gamma")
    }
    weights = {name: tensor for name, tensor in state_dict.items() if name != _WINDOW}
    if found := mismatches(weights, wanted | betas):
        raise CheckpointError(f"weights do not fit zorro-pytorch 0.1.1 and the config: {found}")
    if moved := sorted(name for name in betas if state_dict[name].count_nonzero()):
        raise CheckpointError(
            f"layer norms of zorro-pytorch 0.1.1 have no bias, these have: {', '.join(moved)}"
        )
    if _WINDOW in state_dict and tuple(state_dict[_WINDOW].shape) != (config.win_length,):
        raise CheckpointError(
            f"{_WINDOW} has {state_dict[_WINDOW].numel()} samples, not {config.win_length=}"
        )
    model.load_state_dict({name: state_dict[name_in_file[name]].to(torch.float32) for name in own})
    return model.eval()


def _sizes_of(state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    needed = ("fusion_tokens", "layers.0.1.3.weight")
    if missing := [name for name in needed if name not in state_dict or state_dict[name].ndim != 2]:
        raise CheckpointError(
            f"not a state dict of zorro-pytorch 0.1.1: {missing=}; got {sorted(state_dict)[:5]}, ..."
        )
    tokens, narrow = (state_dict[name].shape for name in needed)
    layers = {int(match[1]) for name in state_dict if (match := re.match(r"layers\.(\d+)\.", name))}
    return {
        "dim": tokens[1],
        "num_fusion_tokens": tokens[0],
        "ff_hidden": narrow[1],
        "depth": max(layers) + 1,
    }


def _package_name(name: str) -> str:
    """The package's name of one of our weights."""
    if match := re.match(r"(audio|video)_tokens\.(\d)\.(.+)", name):
        return f"{match[1]}_to_tokens.{_SEQUENCE[match[2]]}.{match[3]}"
    name = re.sub(r"^blocks\.(\d+)\.attention\.", r"layers.\1.0.", name)
    name = re.sub(r"^blocks\.(\d+)\.", r"layers.\1.1.", name)
    name = re.sub(r"^pool\.", "attn_pool.", name)
    name = re.sub(r"(^|\.)norm\.weight$", r"\1norm.gamma", name)
    name = re.sub(r"\.(q|kv|out)\.weight$", r".to_\1.weight", name)
    for own, package in (
        ("ff_norm.weight", "0.gamma"),
        ("widen.weight", "1.weight"),
        ("narrow.weight", "3.weight"),
    ):
        name = re.sub(rf"\.{re.escape(own)}$", f".{package}", name)
    return name
