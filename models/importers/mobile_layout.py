"""Networks of published weights into mobile stems: names of their layers, and the import by names."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.config import Stem, ZorroConfig
from models.weights import float_weights
from models.zorro import ZorroModel

from .report import ImportReport, check_source, write

_COUNTERS = "num_batches_tracked"
"""Of batch norms; a checkpoint of ours has no integers."""


def check_stem(config: ZorroConfig, wanted: Mapping[str, object]) -> None:
    """A network's weights fit only a mobile stem, and pixels or mel bins normalised as in its training.

    Raises:
        ValueError: the model has another stem, or a field of its config is not as `wanted`.
    """
    if config.stem != Stem.MOBILE:
        raise ValueError(f"these weights need stem=mobile, the model has stem={config.stem}")
    given = {name: getattr(config, name) for name in wanted}
    differ = [
        f"{name}={given[name]}, wanted {wanted[name]}" for name in wanted if given[name] != wanted[name]
    ]
    if differ:
        raise ValueError(f"these weights read other input: the model has {'; '.join(differ)}")


def convolution(own: str, convolution_: str, norm: str) -> dict[str, str]:
    """Our name of each weight of the `ConvNorm` called `own`, to its name in the file."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{own}.conv.weight": f"{convolution_}.weight"} | {
        f"{own}.norm.{part}": f"{norm}.{part}" for part in parts
    }


def layers_of_block(block: nn.Module) -> list[str]:
    """Names of the layers that an `InvertedResidual` has, in order."""
    names = ("expand", "depthwise", "squeeze", "project")
    return [name for name in names if getattr(block, name) is not None]


def import_by_names(
    model: ZorroModel,
    source: Mapping[str, Tensor],
    names: Mapping[str, str],
    *,
    matrices: Sequence[str] = (),
    transposed: bool = False,
    ignored: tuple[str, ...] = (),
) -> ImportReport:
    """Copy the weights that `names` lists; if anything does not fit, the model stays as it is.

    Args:
        model: it has every weight of `names`.
        source: the state dict.
        names: our name of each weight that is copied, to its name in the file.
        matrices: ours that are 1x1 convolutions here and matrices in the file.
        transposed: kernels of the file lie over (frequency, time), ours over (time, frequency).
        ignored: beginnings of keys of the file that may be left over.

    Raises:
        CheckpointError: keys or shapes differ; the message lists them.
    """
    own = float_weights(model)
    wanted = {
        other: tuple(own[name].shape)[: 2 if name in matrices else None] for name, other in names.items()
    }
    counters = tuple(sorted(name for name in source if name.endswith(_COUNTERS)))
    floats = {name: x for name, x in source.items() if name not in counters}
    unused = check_source(floats, wanted, ignored=ignored)
    weights = {}
    for name, other in names.items():
        weight = source[other].detach().float().reshape(own[name].shape)
        weights[name] = weight.transpose(2, 3) if transposed and weight.dim() == 4 else weight
    return write(model, weights, unused=(*unused, *counters))
