"""Dropout layers with the rate as data; they replace torch's own, whose masks vmap would change."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from wdsearch.noise import NoiseStream
from wdsearch.types import Scalar

ALPHA = -1.7580993408473766
"""−λα of SELU: the value of an activation that an alpha dropout drops (Klambauer et al. 1706.02515, section 3)."""


class Dropout(nn.Module):
    """Zeroes entries where `noise < rate` and scales the rest by 1/(1 − rate) (Srivastava et al. 2014).

    One noise serves all rates: a larger rate drops a superset of the entries that a smaller one drops.

    >>> few, many = Dropout(0.2, NoiseStream(0, "dropout")), Dropout(0.6, NoiseStream(0, "dropout"))
    >>> dropped_by_few, dropped_by_many = few(torch.ones(100)) == 0, many(torch.ones(100)) == 0
    >>> bool((dropped_by_few <= dropped_by_many).all()), 10 < int(dropped_by_few.sum()) < 30
    (True, True)
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
        mask = noise >= self.rate.to(noise.dtype)
        return self.dropped(inputs, mask.to(inputs.dtype), self.rate.to(inputs.dtype))

    def drawn(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        """A tensor of the mask's shape, which broadcasts to that of the inputs."""
        return inputs

    def dropped(
        self, inputs: Float[Tensor, "*shape"], mask: Float[Tensor, "..."], rate: Scalar
    ) -> Float[Tensor, "*shape"]:
        """Inputs where `mask` is 1, the value of a dropped entry where it is 0."""
        return inputs * (mask * (1.0 / (1.0 - rate)))  # a product: under vmap cheaper than torch.where

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
        first_spatial = 1 if inputs.ndim == self.unbatched else 2
        for dimension in range(first_spatial, inputs.ndim):
            inputs = inputs.narrow(dimension, 0, 1)
        return inputs


class AlphaDropout(Dropout):
    """Keeps mean and variance of SELU activations: dropped entries become −λα (Klambauer et al. 1706.02515, section 3)."""

    def dropped(
        self, inputs: Float[Tensor, "*shape"], mask: Float[Tensor, "..."], rate: Scalar
    ) -> Float[Tensor, "*shape"]:
        scale = ((1.0 - rate) * (1.0 + rate * ALPHA**2)).rsqrt()
        return scale * (inputs * mask + ALPHA * (1.0 - mask)) - scale * ALPHA * rate


class FeatureAlphaDropout(AlphaDropout, ChannelDropout):
    """An alpha dropout of whole channels."""


class MultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with its parameters, in plain matrix products, and with a `Dropout` of its own.

    torch's takes its dropout rate as a float, and some of its kernels have no batching rule.
    """

    attention_dropout: Dropout

    @classmethod
    def of(cls, like: nn.MultiheadAttention, noise: NoiseStream) -> "MultiheadAttention":
        """Build a layer that shares the parameters of torch's."""
        sizes = {"kdim": like.kdim, "vdim": like.vdim, "batch_first": like.batch_first, "device": "meta"}
        attention = cls(like.embed_dim, like.num_heads, add_zero_attn=like.add_zero_attn, **sizes)
        attention._parameters, attention._modules = like._parameters, like._modules
        attention._forward_hooks, attention._forward_pre_hooks = like._forward_hooks, like._forward_pre_hooks
        attention.bias_k, attention.bias_v = like.bias_k, like.bias_v
        attention.attention_dropout = Dropout(like.dropout, noise)
        # if true, encoder layers in eval mode would call a kernel of torch without a batching rule
        attention._qkv_same_embed_dim = False
        return attention

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
        """Attend as `nn.MultiheadAttention`, with its masks and layouts; `is_causal` is a hint only, as there."""
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
        if not need_weights:
            return (mixed if batched else mixed.squeeze(0)), None
        returned = weights.mean(1) if average_attn_weights else weights
        return (mixed, returned) if batched else (mixed.squeeze(0), returned.squeeze(0))

    def _projected(self, *sequences: Float[Tensor, "..."]) -> list[Float[Tensor, "..."]]:
        weights: tuple[Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        return [F.linear(x, weight, bias) for x, weight, bias in zip(sequences, weights, biases, strict=True)]


def _extended(
    rows: Float[Tensor, "batch length features"], bias: Float[Tensor, "1 1 features"] | None
) -> Float[Tensor, "batch longer features"]:
    """Rows followed by a learned last row (`add_bias_kv`)."""
    return rows if bias is None else torch.cat([rows, bias.expand(len(rows), 1, -1)], dim=1)


def _masked(
    scores: Float[Tensor, "batch heads queries keys"],
    mask: Bool[Tensor, "..."] | Float[Tensor, "..."] | None,
    keys_only: bool = False,
) -> Float[Tensor, "batch heads queries keys"]:
    """Scores with a mask: True or −∞ forbids attention; keys beyond the mask (learned, zero) are always attended to."""
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
"""Replacement of each of torch's layers; subclasses are user-defined, and stay."""


def replace_dropout(network: nn.Module, noise: NoiseStream) -> nn.Module:
    """Replace every dropout layer of torch in a network by one with the rate as data that draws from `noise`.

    A layer that is used several times stays one layer. Other layers that draw random numbers keep doing so.

    >>> network = replace_dropout(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.25)), NoiseStream(0, "dropout"))
    >>> network[1].rate
    tensor(0.2500, dtype=torch.float64)
    """
    return _replaced(network, noise, {})


def _replaced(module: nn.Module, noise: NoiseStream, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:
        return done[module]
    layer = LAYERS[type(module)](module, noise).train(module.training) if type(module) in LAYERS else module
    if isinstance(layer, Dropout):
        layer.noise = noise
    done[module] = layer
    for name, child in layer._modules.items():  # named_children would list a shared layer once
        if child is not None:
            setattr(layer, name, _replaced(child, noise, done))
    return layer
