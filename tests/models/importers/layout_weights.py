"""Made-up weights in the layout that timm's ViT and AST share, and models to import them into."""

import torch
from torch import Tensor

from models import ZorroConfig, ZorroModel
from models.weights import float_weights

Shapes = dict[str, tuple[int, ...]]


def block_shapes(*, dim: int, depth: int) -> Shapes:
    """Keys and shapes of the transformer blocks and the last norm."""
    maps: Shapes = {
        "norm1": (dim,),
        "attn.qkv": (3 * dim, dim),
        "attn.proj": (dim, dim),
        "norm2": (dim,),
        "mlp.fc1": (4 * dim, dim),
        "mlp.fc2": (dim, 4 * dim),
    }
    shapes: Shapes = {"norm.weight": (dim,), "norm.bias": (dim,)}
    for i in range(depth):
        for name, shape in maps.items():
            shapes[f"blocks.{i}.{name}.weight"], shapes[f"blocks.{i}.{name}.bias"] = shape, shape[:1]
    return shapes


def random_weights(shapes: Shapes) -> dict[str, Tensor]:
    """Weights of the given shapes, always the same."""
    generator = torch.Generator().manual_seed(3)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def new_model(config: ZorroConfig) -> ZorroModel:
    """A model in eval mode, always with the same weights."""
    torch.manual_seed(0)
    return ZorroModel(config).eval()


def copied_weights(model: ZorroModel) -> dict[str, Tensor]:
    """The weights of a model as they are now."""
    return {name: tensor.clone() for name, tensor in float_weights(model).items()}
