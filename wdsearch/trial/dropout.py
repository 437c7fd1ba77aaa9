"""Dropout layers with the rate as data; they replace torch's own, whose masks vmap would change."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from wdsearch.noise import NoiseStream
from wdsearch.types import Scalar

ALPHA = -1.7580993408473766
"""−λα of SELU: the value of an activation that an alpha dropout drops (Klambauer et al. 1706.02515, section 3)."""

NEARLY_ZERO = 5e-324


class Rate(float):
    """A dropout rate that is data, as the number for which code takes `layer.p`; `functions_with_rates` knows its layer.

    Never 0, so that `if p > 0` does not depend on a strength: `NEARLY_ZERO` drops nothing.
    """

    layer: "Dropout"


class Dropout(_DropoutNd):
    """Zeroes entries where `noise < rate` and scales the rest by 1/(1 − rate) (Srivastava et al. 2014).

    One noise serves all rates: a larger rate drops a superset of the entries that a smaller one drops. The layers that stand
    for torch's are of their classes too; `p` reads and sets the rate.

    >>> few, many = Dropout(0.2, NoiseStream(0, "dropout")), Dropout(0.6, NoiseStream(0, "dropout"))
    >>> dropped_by_few, dropped_by_many = few(torch.ones(100)) == 0, many(torch.ones(100)) == 0
    >>> bool((dropped_by_few <= dropped_by_many).all()), 10 < int(dropped_by_few.sum()) < 30
    (True, True)
    """

    rate: Scalar
    noise: NoiseStream

    def __init__(self, rate: float, noise: NoiseStream) -> None:
        nn.Module.__init__(self)
        self.draw_from(noise, rate)

    def draw_from(self, noise: NoiseStream, rate: float) -> None:
        """Make the rate data and draw from `noise`."""
        self.noise, self.searched, self._constant = noise, False, float(rate)
        self.register_buffer("rate", torch.tensor(float(rate), dtype=torch.float64))

    def write(self, rate: float) -> None:
        """Set the rate to a strength, which differs from trial to trial."""
        self.searched = True
        self.rate.fill_(rate)

    @property
    def p(self) -> float:
        """Rate as a number."""
        if not self.searched and not self._constant:
            return self._constant
        rate = Rate(max(NEARLY_ZERO, self._number()))
        rate.layer = self
        return rate

    @p.setter
    def p(self, rate: float) -> None:
        self._constant = float(rate)
        with torch.no_grad():
            self.rate.fill_(self._constant)

    def _number(self) -> float:
        return (
            self._constant if not self.searched or torch._C._functorch.is_batchedtensor(self.rate) else float(self.rate)
        )

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training:
            return inputs
        return self.applied_as(type(self), inputs)

    def applied_as(self, kind: "type[Dropout]", inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Inputs after a dropout of another kind with this layer's rate and noise."""
        return dropped_as(kind, inputs, self.rate, self.noise)

    @classmethod
    def drawn(cls, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        """A tensor of the mask's shape, which broadcasts to that of the inputs."""
        return inputs

    @classmethod
    def dropped(
        cls, inputs: Float[Tensor, "*shape"], mask: Float[Tensor, "..."], rate: Scalar
    ) -> Float[Tensor, "*shape"]:
        """Inputs where `mask` is 1, the value of a dropped entry where it is 0."""
        return inputs * (mask * (1.0 / (1.0 - rate)))  # a product: under vmap cheaper than torch.where

    def extra_repr(self) -> str:
        return "rate is data"


def dropped_as(
    kind: type[Dropout], inputs: Float[Tensor, "*shape"], rate: Scalar, noise: NoiseStream
) -> Float[Tensor, "*shape"]:
    """Inputs after a dropout of a kind, at a rate that is data.

    >>> outputs = dropped_as(ElementDropout, torch.ones(100), torch.tensor(0.5), NoiseStream(0, "dropout"))
    >>> sorted(set(outputs.tolist()))
    [0.0, 2.0]
    """
    drawn = noise.uniform(kind.drawn(inputs))
    mask = drawn >= rate.to(drawn.dtype)
    return kind.dropped(inputs, mask.to(inputs.dtype), rate.to(inputs.dtype))


class ElementDropout(Dropout, nn.Dropout):
    """Drops single entries."""


class ChannelDropout(Dropout):
    """Drops whole channels (Tompson et al. 1411.4280), of inputs (batch, channels, ...) or (channels, ...).

    `unbatched` is the number of dimensions of inputs without a batch; torch's `Dropout2d` takes three dimensions for a batch.
    """

    unbatched: int | None = None

    @classmethod
    def drawn(cls, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        first_spatial = 1 if inputs.ndim == cls.unbatched else 2
        for dimension in range(first_spatial, inputs.ndim):
            inputs = inputs.narrow(dimension, 0, 1)
        return inputs


class ChannelDropout1d(ChannelDropout, nn.Dropout1d):
    """Drops the channels of sequences."""

    unbatched = 2


class ChannelDropout2d(ChannelDropout, nn.Dropout2d):
    """Drops the channels of images."""


class ChannelDropout3d(ChannelDropout, nn.Dropout3d):
    """Drops the channels of volumes."""

    unbatched = 4


class AlphaDropout(Dropout, nn.AlphaDropout):
    """Keeps mean and variance of SELU activations: dropped entries become −λα (Klambauer et al. 1706.02515, section 3)."""

    @classmethod
    def dropped(
        cls, inputs: Float[Tensor, "*shape"], mask: Float[Tensor, "..."], rate: Scalar
    ) -> Float[Tensor, "*shape"]:
        scale = ((1.0 - rate) * (1.0 + rate * ALPHA**2)).rsqrt()
        return scale * (inputs * mask + ALPHA * (1.0 - mask)) - scale * ALPHA * rate


class FeatureAlphaDropout(ChannelDropout, nn.FeatureAlphaDropout):
    """An alpha dropout of whole channels."""

    dropped = AlphaDropout.dropped


class MultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with its parameters, in plain matrix products, and with a `Dropout` of its own.

    torch's takes its dropout rate as a float, and some of its kernels have no batching rule.
    """

    attention_dropout: Dropout

    def draw_from(self, noise: NoiseStream, rate: float) -> None:
        """Make the rate data and draw from `noise`."""
        self.attention_dropout = ElementDropout(rate, noise)
        self.attention_dropout.train(self.training)
        # if true, encoder layers in eval mode would call a kernel of torch without a batching rule
        self._qkv_same_embed_dim = False

    @property
    def dropout(self) -> float:
        """Rate as a number."""
        return self.attention_dropout.p

    @dropout.setter
    def dropout(self, rate: float) -> None:
        self.attention_dropout.p = rate

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


LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: ElementDropout,
    nn.Dropout1d: ChannelDropout1d,
    nn.Dropout2d: ChannelDropout2d,
    nn.Dropout3d: ChannelDropout3d,
    nn.AlphaDropout: AlphaDropout,
    nn.FeatureAlphaDropout: FeatureAlphaDropout,
    nn.MultiheadAttention: MultiheadAttention,
}
"""Replacement of each of torch's layers; subclasses are user-defined, and stay."""


def replace_dropout(network: nn.Module, noise: NoiseStream) -> nn.Module:
    """Turn every dropout layer of torch in a network into one with the rate as data that draws from `noise`.

    The layers stay the same objects, with their hooks and attributes. Other layers that draw random numbers keep doing so.

    >>> network = replace_dropout(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.25)), NoiseStream(0, "dropout"))
    >>> network[1].rate, network[1].p, isinstance(network[1], nn.Dropout)
    (tensor(0.2500, dtype=torch.float64), 0.25, True)
    """
    for layer in list(network.modules()):
        if type(layer) in LAYERS:
            own: Any = layer
            rate = own.__dict__.pop("p" if isinstance(layer, _DropoutNd) else "dropout")
            own.__class__ = LAYERS[type(layer)]
            own.draw_from(noise, rate)
        elif isinstance(layer, Dropout):  # of a network that has been in another trial
            layer.noise = noise
    return network


def with_rates_of(trial: nn.Module, network: nn.Module) -> nn.Module:
    """The network, its layers of torch with the rates that those of a trial's network of the same build have.

    >>> trial = replace_dropout(nn.Sequential(nn.Dropout(0.25)), NoiseStream(0, "dropout"))
    >>> with_rates_of(trial, nn.Sequential(nn.Dropout(0.0)))
    Sequential(
      (0): Dropout(p=0.25, inplace=False)
    )
    """
    layers: dict[str, Any] = dict(network.named_modules())
    for name, layer in trial.named_modules():
        if isinstance(layer, MultiheadAttention):
            layers[name].dropout = float(layer.attention_dropout.rate)
        elif isinstance(layer, Dropout) and name in layers:
            layers[name].p = float(layer.rate)
    return network
