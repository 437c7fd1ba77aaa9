"""Values of a trial that a population stacks."""

from collections.abc import Mapping

import torch
from torch import nn

from wdsearch.types import Strengths


class Scalars(nn.Module):
    """Values of a trial as 0-d float64 buffers, which a population stacks like any buffer."""

    def __init__(self, values: Mapping[str, float]) -> None:
        super().__init__()
        for key, value in values.items():
            self.register_buffer(key, torch.tensor(float(value), dtype=torch.float64))

    def as_dict(self, dtype: torch.dtype = torch.float64) -> Strengths:
        """Values by key: 0-d in a trial, batched under vmap."""
        return {key: value.to(dtype) for key, value in self.named_buffers()}
