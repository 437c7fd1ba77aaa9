"""Dropout by functions that a network calls: they drop as layers do, at the trial's rate, which is data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from wdsearch.groups import split_key
from wdsearch.noise import NoiseStream
from wdsearch.trial.dropout import (
    AlphaDropout,
    ChannelDropout1d,
    ChannelDropout2d,
    ChannelDropout3d,
    Dropout,
    ElementDropout,
    FeatureAlphaDropout,
    Rate,
    dropped_as,
)
from wdsearch.trial.scalars import Scalars


class FunctionDropout:
    """Searched rate of the dropout functions that a network calls with a number of its own, above 0.

    >>> source = FunctionDropout(Scalars({"dropout": 0.5}), "dropout", NoiseStream(0, "dropout"))
    >>> sorted(set(source.applied_as(ElementDropout, torch.ones(100)).tolist()))
    [0.0, 2.0]
    """

    def __init__(self, strengths: Scalars, key: str, noise: NoiseStream) -> None:
        self.strengths, self.key, self.noise = strengths, key, noise

    def applied_as(self, kind: type[Dropout], inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Inputs after a dropout of a kind."""
        return dropped_as(kind, inputs, self.strengths.get_buffer(self.key), self.noise)


Source = Dropout | FunctionDropout
"""A rate that is data, with the noise to drop by."""


def function_dropout(
    keys: Iterable[str], strengths: Scalars, noise: Mapping[str, NoiseStream]
) -> FunctionDropout | None:
    """Searched rate of a trial's functions by the first key without a group; None if there is none.

    Groups go by the names of layers, which functions do not have: they keep their numbers.

    >>> function_dropout(["dropout:head"], Scalars({"dropout:head": 0.5}), {}) is None
    True
    """
    key = next((key for key in keys if not split_key(key)[1]), None)
    return None if key is None else FunctionDropout(strengths, key, noise[key])


def functions_with_rates(network: nn.Module, searched: Source | None = None) -> AbstractContextManager[Any]:
    """Context for calls of a network in which torch's functions take the `p` of a dropout layer as data.

    With a `searched` rate they take it in place of any number above 0, as Hugging Face's attention and graph networks pass it.
    Modules of torch itself are known to pass none: they are called as they are.

    >>> isinstance(functions_with_rates(nn.Linear(3, 2)), nullcontext)
    True
    """
    if all(type(module).__module__.startswith(("torch.nn.modules.", "wdsearch.")) for module in network.modules()):
        return nullcontext()
    return _Functions(searched)


class _Functions(TorchFunctionMode):
    """Replaces dropout at a rate that is data, and what vmap cannot batch: attention's fused kernels, `column_stack`."""

    def __init__(self, searched: Source | None) -> None:
        super().__init__()
        self.searched = searched

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        replacement = _REPLACEMENTS.get(function)
        if replacement is None:
            return function(*args, **(kwargs or {}))
        return replacement(function, self.source, *args, **(kwargs or {}))

    def source(self, p: float) -> Source | None:
        """Source of the rate that a call with `p` drops at; None if it keeps the number."""
        if isinstance(p, Rate):
            return p.layer
        return self.searched if p > 0 else None


Sources = Callable[[float], Source | None]


def _dropout_as(kind: type[Dropout]) -> Callable[..., Tensor]:
    """One of torch's dropout functions, which drops as a layer of `kind` does if its `p` has a source."""

    def dropout(
        function: Callable[..., Tensor],
        source_of: Sources,
        input: Tensor,
        p: float = 0.5,
        training: bool = kind not in (AlphaDropout, FeatureAlphaDropout),
        inplace: bool = False,
    ) -> Tensor:
        source = source_of(p)
        if source is None:
            return function(input, p, training, inplace)
        if not training:
            return input
        outputs = source.applied_as(kind, input)
        return input.copy_(outputs) if inplace else outputs

    return dropout


def _native_dropout(
    function: Callable[..., Tensor], source_of: Sources, input: Tensor, p: float, train: bool
) -> Tensor:
    source = source_of(p)
    if source is None:
        return function(input, p, train)
    return source.applied_as(ElementDropout, input) if train else input


def _attention(
    function: Callable[..., Tensor],
    source_of: Sources,
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
    source = source_of(dropout_p)
    if source is not None:
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        return _dropped_attention(query, key, value, _mask(query, key, attn_mask, is_causal), scale, source)
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
    source: Source,
) -> Float[Tensor, "... queries values"]:
    """Attention as `F.scaled_dot_product_attention` defines it, with dropout; a mask is True where attention goes."""
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return source.applied_as(ElementDropout, scores.softmax(-1)) @ value


def _column_stack(
    function: Callable[..., Tensor], source_of: Sources, tensors: Sequence[Tensor], **options: Any
) -> Tensor:
    """Columns side by side, as torch documents it, in functions that vmap can batch."""
    if options:
        return function(tensors, **options)
    return torch.cat([x.reshape(-1, 1) if x.ndim < 2 else x for x in tensors], dim=1)


_REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    F.dropout: _dropout_as(ElementDropout),
    F.dropout1d: _dropout_as(ChannelDropout1d),
    F.dropout2d: _dropout_as(ChannelDropout2d),
    F.dropout3d: _dropout_as(ChannelDropout3d),
    F.alpha_dropout: _dropout_as(AlphaDropout),
    F.feature_alpha_dropout: _dropout_as(FeatureAlphaDropout),
    torch.dropout: _native_dropout,
    F.scaled_dot_product_attention: _attention,
    torch.column_stack: _column_stack,
}
