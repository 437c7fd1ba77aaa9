"""Layers that drop activations at a rate that is data; they stand in for torch's own, whose masks vmap would change."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from wdsearch.noise import NoiseStream
from wdsearch.types import Scalar

ALPHA = -1.7580993408473766
"""−λα of SELU: what an alpha dropout sets a dropped activation to (Klambauer et al. 1706.02515, section 3)."""


class Dropout(nn.Module):
    """Zeroes entries where `noise < rate` and scales the rest by 1/(1 − rate) (Srivastava et al. 2014).

    One noise serves all rates: a larger rate drops a superset of what a smaller one drops.
    """

    rate: Scalar

    def __init__(self, rate: float, noise: NoiseStream) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("rate", torch.tensor(float(rate), dtype=torch.float64))

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training:
            return inputs
        noise = self.noise.uniform(self.drawn(inputs))
        kept = noise >= self.rate.to(noise.dtype)
        return self.dropped(inputs, kept.to(inputs.dtype), self.rate.to(inputs.dtype))

    def drawn(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        """A tensor of the mask's shape, which broadcasts to that of the inputs."""
        return inputs

    def dropped(
        self, inputs: Float[Tensor, "*shape"], kept: Float[Tensor, "..."], rate: Scalar
    ) -> Float[Tensor, "*shape"]:
        """The inputs where `kept` is 1, something else where it is 0."""
        return inputs * (kept * (1.0 / (1.0 - rate)))  # a product: under vmap cheaper than torch.where

    def extra_repr(self) -> str:
        return "rate is data"


class ChannelDropout(Dropout):
    """Drops whole channels (Tompson et al. 1411.4280), of inputs (batch, channels, ...) or (channels, ...).

    `unbatched` is the number of dimensions of inputs without a batch.
    """

    def __init__(self, rate: float, noise: NoiseStream, unbatched: int | None = None) -> None:
        super().__init__(rate, noise)
        self.unbatched = unbatched

    def drawn(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        kept = 1 if inputs.ndim == self.unbatched else 2
        for dimension in range(kept, inputs.ndim):
            inputs = inputs.narrow(dimension, 0, 1)
        return inputs


class AlphaDropout(Dropout):
    """Keeps mean and variance of SELU activations: dropped entries become −λα (Klambauer et al. 1706.02515, section 3)."""

    def dropped(
        self, inputs: Float[Tensor, "*shape"], kept: Float[Tensor, "..."], rate: Scalar
    ) -> Float[Tensor, "*shape"]:
        scale = ((1.0 - rate) * (1.0 + rate * ALPHA**2)).rsqrt()
        return scale * (inputs * kept + ALPHA * (1.0 - kept)) - scale * ALPHA * rate


class FeatureAlphaDropout(AlphaDropout, ChannelDropout):
    """An alpha dropout of whole channels."""


class MultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with its parameters, in plain matrix products, and with a `Dropout` of its own.

    torch's takes a dropout that is a float, and kernels of which some have no batching rule.
    """

    attention_dropout: Dropout

    @classmethod
    def of(cls, like: nn.MultiheadAttention, noise: NoiseStream) -> "MultiheadAttention":
        """With the parameters of a plain one."""
        sizes = {"kdim": like.kdim, "vdim": like.vdim, "batch_first": like.batch_first, "device": "meta"}
        made = cls(like.embed_dim, like.num_heads, add_zero_attn=like.add_zero_attn, **sizes)
        made._parameters, made._modules = like._parameters, like._modules
        made._forward_hooks, made._forward_pre_hooks = like._forward_hooks, like._forward_pre_hooks
        made.bias_k, made.bias_v = like.bias_k, like.bias_v
        made.attention_dropout = Dropout(like.dropout, noise)
        # what encoder layers look at before they call, in eval mode, a kernel of torch that knows no vmap
        made._qkv_same_embed_dim = False
        return made

    def forward(
        self,
        query: Float[Tensor, "..."],
        key: Float[Tensor, "..."],
        value: Float[Tensor, "..."],
        key_padding_mask: Shaped[Tensor, "..."] | None = None,
        need_weights: bool = True,
        attn_mask: Shaped[Tensor, "..."] | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."] | None]:
        """As `nn.MultiheadAttention`, whose masks and layouts it takes; `is_causal` is a hint only, as there."""
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint: attn_mask must be given too")
        batched = query.ndim == 3
        batch_first = self.batch_first or not batched
        q, k, v = (x if batched else x.unsqueeze(0) for x in self._projected(query, key, value))
        if not batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        k, v = _extended(k, self.bias_k), _extended(v, self.bias_v)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        scores = _masked(_masked(scores, attn_mask), key_padding_mask, keys_only=True)
        weights = self.attention_dropout(scores.softmax(-1))
        mixed = self.out_proj((weights @ v).transpose(1, 2).flatten(-2))
        mixed = mixed if batch_first else mixed.transpose(0, 1)
        shown = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
        if batched:
            return mixed, shown
        return mixed.squeeze(0), shown if shown is None else shown.squeeze(0)

    def _projected(self, *given: Float[Tensor, "..."]) -> list[Float[Tensor, "..."]]:
        weights: tuple[Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        return [F.linear(x, weight, bias) for x, weight, bias in zip(given, weights, biases, strict=True)]


def _extended(
    rows: Float[Tensor, "batch length features"], bias: Float[Tensor, "1 1 features"] | None
) -> Float[Tensor, "batch longer features"]:
    """With a learned last row (`add_bias_kv`)."""
    return rows if bias is None else torch.cat([rows, bias.expand(len(rows), 1, -1)], dim=1)


def _masked(
    scores: Float[Tensor, "batch heads queries keys"],
    mask: Bool[Tensor, "..."] | Float[Tensor, "..."] | None,
    keys_only: bool = False,
) -> Float[Tensor, "batch heads queries keys"]:
    """Scores with a mask: True or −∞ where nothing may be seen; keys beyond the mask (learned, zero) are always seen."""
    if mask is None:
        return scores
    if keys_only:
        mask = mask.view(-1, 1, 1, mask.shape[-1])
    elif mask.ndim == 3:
        mask = mask.unflatten(0, scores.shape[:2])
    mask = F.pad(mask, (0, scores.shape[-1] - mask.shape[-1]))
    return scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


LAYERS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Dropout: lambda layer, noise: Dropout(layer.p, noise),
    nn.Dropout1d: lambda layer, noise: ChannelDropout(layer.p, noise, unbatched=2),
    nn.Dropout2d: lambda layer, noise: ChannelDropout(layer.p, noise),  # torch takes three dimensions for a batch here
    nn.Dropout3d: lambda layer, noise: ChannelDropout(layer.p, noise, unbatched=4),
    nn.AlphaDropout: lambda layer, noise: AlphaDropout(layer.p, noise),
    nn.FeatureAlphaDropout: lambda layer, noise: FeatureAlphaDropout(layer.p, noise),
    nn.MultiheadAttention: MultiheadAttention.of,
}
"""What stands in for each of torch's layers; their subclasses are somebody's own, and stay."""


def replace_dropout(network: nn.Module, noise: NoiseStream) -> nn.Module:
    """The network with every layer of torch that drops replaced by one whose rate is data and that draws from `noise`.

    A layer in several places stays one layer. Raises nothing; what draws otherwise keeps doing so.
    """
    return _replaced(network, noise, {})


def _replaced(module: nn.Module, noise: NoiseStream, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:
        return done[module]
    made = LAYERS[type(module)](module, noise).train(module.training) if type(module) in LAYERS else module
    if isinstance(made, Dropout):
        made.noise = noise
    done[module] = made
    for name, child in made._modules.items():  # named_children would tell a shared layer once
        if child is not None:
            setattr(made, name, _replaced(child, noise, done))
    return made
