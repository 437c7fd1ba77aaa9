"""The table of network builders: one file and one line each.

Of a builder's arguments, `inputs`, `outputs`, `shape` and `categories` come from the data, all others from the study.
"""

from collections.abc import Callable

from torch import nn

from wdsearch.models.convnet import convnet
from wdsearch.models.mlp import mlp
from wdsearch.models.residual_mlp import residual_mlp
from wdsearch.models.resnet import resnet
from wdsearch.models.transformer import transformer
from wdsearch.plugins import Table


def _misfit(_: str, entry: object) -> str:
    return "" if callable(entry) else f"{entry!r} is no function that returns a network"


MODELS: Table[Callable[..., nn.Module]] = Table(
    "models",
    {
        "mlp": mlp,
        "residual_mlp": residual_mlp,
        "convnet": convnet,
        "resnet": resnet,
        "transformer": transformer,
    },
    _misfit,
)


__all__ = ["MODELS"]
