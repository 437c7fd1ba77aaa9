"""Finds by one training step the dropout that a study reaches, and that which keeps the rate set by the network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from wdsearch.trial.batches import Batch
from wdsearch.trial.dropout import Dropout
from wdsearch.trial.module import RegularizedModule

_FUNCTIONS = {
    getattr(F, name): name
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
}
_RATES = ("drop_prob", "p", "drop_rate", "rate", "prob")
"""Attributes in which layers such as DropPath and StochasticDepth keep their rate."""


class DropoutInUse(NamedTuple):
    """What drops in training: names of the layers whose rate can be searched, and texts of all else.

    `functions` are called at the trial's rate, `others` keep a rate of their own.
    """

    layers: tuple[str, ...]
    functions: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def dropout_in_use(module: RegularizedModule, batch: Batch) -> DropoutInUse:
    """Layers and calls that drop in one training step of a trial; the trial is of no use afterwards.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.1))
    >>> dropout_in_use(RegularizedModule(network), (torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)))
    DropoutInUse(layers=('1',), functions=(), others=())
    """
    layers: list[str] = []
    functions: list[str] = []
    calls: list[str] = []
    module.train().rewind_noise(0, 0)
    with _recorded(module, layers, functions, calls), torch.no_grad():
        module.objective(batch)
    own = (text for name, layer in module.network.named_modules() if (text := _own_rate(name, layer)))
    return DropoutInUse(*(tuple(dict.fromkeys(texts)) for texts in (layers, functions, [*own, *calls])))


def dropout_notes(module: RegularizedModule, use: DropoutInUse) -> list[str]:
    """Sentences on dropout that acts nowhere, that a search reaches in part, or that the baseline keeps.

    >>> module = RegularizedModule(nn.Linear(3, 2), {"dropout": 0.1})
    >>> dropout_notes(module, DropoutInUse((), others=("memory (LSTM): dropout 0.3",)))[0]
    'dropout acts on nothing here: no dropout layer or function of torch is called in training; leave it out of the space'
    """
    searched = any(key.partition(":")[0] == "dropout" for key in module.regularizers)
    fixed = {name: layer.p for name, layer in module.network.named_modules() if isinstance(layer, Dropout)}
    members = {name.removeprefix("network.") for key, names in module.members.items() for name in names}
    unreached = [
        f"{name} (dropout {rate:g})"
        for name, rate in fixed.items()
        if name in use.layers and name not in members and rate
    ]
    unreached += use.others
    notes = []
    if searched and not use.layers and not use.functions:
        text = "dropout acts on nothing here: no dropout layer or function of torch is called in training"
        notes.append(f"{text}; leave it out of the space")
    if unreached:
        reach = "the search of dropout does not reach" if searched else "dropout is not searched, and trials keep"
        notes.append(
            f"{reach} {_listed(unreached)}; the unregularized baseline keeps {'it' if len(unreached) == 1 else 'them'} too"
        )
    return notes


def inert(module: RegularizedModule, use: DropoutInUse) -> list[str]:
    """Keys of strengths that act on nothing in a trial's network.

    >>> inert(RegularizedModule(nn.Linear(3, 2), {"dropout": 0.1, "l1": 0.0}), DropoutInUse(()))
    ['dropout']
    """
    in_use = {f"network.{name}" for name in use.layers}
    layers = {key for key, _ in module.acting("buffer")}
    acting = [key for key, names in module.members.items() if (in_use & {*names} if key in layers else names)]
    acting += [module.function_dropout.key] if use.functions and module.function_dropout else []
    return [key for key in module.members if key not in acting]


@contextmanager
def _recorded(module: RegularizedModule, layers: list[str], functions: list[str], calls: list[str]) -> Iterator[None]:
    """Names of layers that drop, and texts of calls that do at the trial's rate or at one of their own, while it lasts."""
    inside: list[str] = [""]
    handles = []
    for name, layer in module.network.named_modules():
        text = f"{name or 'the network'} ({type(layer).__name__})"
        handles.append(layer.register_forward_pre_hook(partial(_enter, inside, text)))
        handles.append(layer.register_forward_hook(partial(_leave, inside), always_call=True))
        if isinstance(layer, Dropout):
            _note_uses(layer, lambda name=name: layers.append(name))  # type: ignore[misc]
    if module.function_dropout:
        _note_uses(module.function_dropout, lambda: functions.append(inside[-1]))
    try:
        with _Calls(inside, calls):
            yield
    finally:
        for handle in handles:
            handle.remove()
        for source in (*module.network.modules(), *filter(None, [module.function_dropout])):
            vars(source).pop("applied_as", None)


def _enter(inside: list[str], text: str, *_: Any) -> None:
    inside.append(text)


def _leave(inside: list[str], *_: Any) -> None:
    inside.pop()


def _note_uses(source: Any, note: Callable[[], None]) -> None:
    """Call `note` whenever something is dropped at the rate of `source`."""
    apply = source.applied_as

    def applied_as(*args: Any) -> Any:
        note()
        return apply(*args)

    vars(source)["applied_as"] = applied_as


class _Calls(TorchFunctionMode):
    """Records calls of dropout functions with a rate of their own."""

    def __init__(self, inside: Sequence[str], texts: list[str]) -> None:
        super().__init__()
        self.inside, self.texts = inside, texts

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if function in _FUNCTIONS:
            named = dict(zip(("input", "p", "training"), args, strict=False)) | options
            if named.get("training", function is F.dropout) and named.get("p", 0.5):
                self.texts.append(f"{self.inside[-1]}: F.{_FUNCTIONS[function]} with {float(named.get('p', 0.5)):g}")
        elif function is F.multi_head_attention_forward:
            named = signature(function).bind(*args, **options).arguments
            if named["dropout_p"] and named.get("training", True):
                self.texts.append(f"{self.inside[-1]}: attention with dropout {float(named['dropout_p']):g}")
        elif function is F.scaled_dot_product_attention:
            rate = options.get("dropout_p", args[4] if len(args) > 4 else 0.0)
            if rate:
                self.texts.append(f"{self.inside[-1]}: attention with dropout {float(rate):g}")
        return function(*args, **options)


def _own_rate(name: str, layer: nn.Module) -> str | None:
    """Text on a layer that drops at a rate of its own other than by one of torch's functions; None if it does not."""
    kind = type(layer).__name__
    if isinstance(layer, nn.RNNBase):
        return f"{name} ({kind}): dropout {layer.dropout:g}" if layer.dropout and layer.num_layers > 1 else None
    names = ("droppath", "drop_path", "stochasticdepth", "dropblock", "droplayer", "zoneout")
    if isinstance(layer, Dropout | _DropoutNd) or not any(word in kind.lower() for word in names):
        return None
    rates = (getattr(layer, attribute, None) for attribute in _RATES)
    rate = next((rate for rate in rates if isinstance(rate, int | float) and rate), None)
    return f"{name} ({kind}): {rate:g}" if rate else None


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more
