"""Dropout by functions that are called with the `p` of a layer: they drop as the layer does, at the trial's own rate."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from wdsearch.trial.dropout import (
    AlphaDropout,
    ChannelDropout1d,
    ChannelDropout2d,
    ChannelDropout3d,
    Dropout,
    ElementDropout,
    FeatureAlphaDropout,
    Rate,
)


def functions_with_rates(network: nn.Module) -> AbstractContextManager[Any]:
    """Context for calls of a network in which torch's functions take the `p` of a dropout layer as data.

    Modules of torch itself are known to pass none: they are called as they are.

    >>> isinstance(functions_with_rates(nn.Linear(3, 2)), nullcontext)
    True
    """
    if all(type(module).__module__.startswith(("torch.nn.modules.", "wdsearch.")) for module in network.modules()):
        return nullcontext()
    return _Functions()


class _Functions(TorchFunctionMode):
    """Replaces dropout with a `Rate`, and attention, whose fused kernels cannot be batched."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        replacement = _REPLACEMENTS.get(function)
        if replacement is None:
            return function(*args, **(kwargs or {}))
        return replacement(function, *args, **(kwargs or {}))


def _dropout_as(kind: type[Dropout]) -> Callable[..., Tensor]:
    """One of torch's dropout functions, which drops as a layer of `kind` does if its `p` is a Rate."""

    def dropout(
        function: Callable[..., Tensor],
        input: Tensor,
        p: float = 0.5,
        training: bool = kind not in (AlphaDropout, FeatureAlphaDropout),
        inplace: bool = False,
    ) -> Tensor:
        if not isinstance(p, Rate):
            return function(input, p, training, inplace)
        if not training:
            return input
        outputs = p.layer.applied_as(kind, input)
        return input.copy_(outputs) if inplace else outputs

    return dropout


def _native_dropout(function: Callable[..., Tensor], input: Tensor, p: float, train: bool) -> Tensor:
    if not isinstance(p, Rate):
        return function(input, p, train)
    return p.layer.applied_as(ElementDropout, input) if train else input


def _attention(
    function: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if isinstance(dropout_p, Rate):
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        return _dropped_attention(query, key, value, _mask(query, key, attn_mask, is_causal), scale, dropout_p.layer)
    options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
    if torch._C._functorch.maybe_current_level() is None:
        return function(query, key, value, attn_mask, dropout_p, is_causal, **options)
    with sdpa_kernel(SDPBackend.MATH):
        return function(query, key, value, attn_mask, dropout_p, is_causal, **options)


def _mask(
    query: Float[Tensor, "... queries features"],
    key: Float[Tensor, "... keys features"],
    mask: Shaped[Tensor, "..."] | None,
    is_causal: bool,
) -> Shaped[Tensor, "..."] | None:
    if not is_causal:
        return mask
    return torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()


def _dropped_attention(
    query: Float[Tensor, "... queries features"],
    key: Float[Tensor, "... keys features"],
    value: Float[Tensor, "... keys values"],
    mask: Bool[Tensor, "..."] | Float[Tensor, "..."] | None,
    scale: float | None,
    layer: Dropout,
) -> Float[Tensor, "... queries values"]:
    """Attention as `F.scaled_dot_product_attention` defines it, with a layer's dropout; a mask is True where attention goes."""
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return layer.applied_as(ElementDropout, scores.softmax(-1)) @ value


_REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    F.dropout: _dropout_as(ElementDropout),
    F.dropout1d: _dropout_as(ChannelDropout1d),
    F.dropout2d: _dropout_as(ChannelDropout2d),
    F.dropout3d: _dropout_as(ChannelDropout3d),
    F.alpha_dropout: _dropout_as(AlphaDropout),
    F.feature_alpha_dropout: _dropout_as(FeatureAlphaDropout),
    torch.dropout: _native_dropout,
    F.scaled_dot_product_attention: _attention,
}
