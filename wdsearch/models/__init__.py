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

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "residual_mlp": residual_mlp,
    "convnet": convnet,
    "resnet": resnet,
    "transformer": transformer,
}

__all__ = ["MODELS"]
