"""The table of network builders: one file and one line each. A builder takes `inputs` and `outputs` first."""

from collections.abc import Callable

from torch import nn

from wdsearch.models.mlp import mlp

MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp}

__all__ = ["MODELS"]
