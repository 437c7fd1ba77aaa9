"""The table of network builders: one file and one line each.

A builder takes from the data what its arguments name of `inputs`, `outputs`, `shape` and `categories`, the rest from a study.
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
