"""A network trained as its library's users do, by plain Lightning and torch's AdamW; only its dropout masks are chosen."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from wdsearch.noise import NoiseStream


class Plain(L.LightningModule):
    """A network with its own loss, the names of its parameters that decay, and the noise of its dropout."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        decayed: Iterable[str],
        options: Mapping[str, float],
        noise: NoiseStream,
    ) -> None:
        super().__init__()
        self.network, self.own_loss, self.decayed = network, loss, set(decayed)
        self.options, self.noise = options, noise

    def training_step(self, batch: Any, index: int) -> Tensor:
        self.noise.at(self.current_epoch, index)
        with _CommonNoise(self.noise):
            return self.own_loss(self.network, batch)

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.own_loss(self.network, batch), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        named = dict(self.network.named_parameters())
        rest = [value for name, value in named.items() if name not in self.decayed]
        groups = [{"params": [named[name] for name in self.decayed]}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, **self.options)


class _CommonNoise(TorchFunctionMode):
    """Takes the masks of torch's dropout from a stream of noise: an entry is kept where the noise is at least the rate."""

    def __init__(self, noise: NoiseStream) -> None:
        super().__init__()
        self.noise = noise

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.dropout:
            return self.dropped(*args, **(kwargs or {}))
        if function is F.scaled_dot_product_attention:
            return self.attended(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def dropped(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or not p:
            return input
        kept = (self.noise.uniform(input) >= p).to(input)
        return input * kept / (1.0 - p)

    def attended(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **options: Any) -> Tensor:
        """Attention as torch's documentation defines it."""
        if options.get("enable_gqa"):
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        scores = query @ key.mT * (options.get("scale") or 1.0 / math.sqrt(query.shape[-1]))
        if options.get("is_causal"):
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return self.dropped(scores.softmax(-1), options.get("dropout_p", 0.0)) @ value
