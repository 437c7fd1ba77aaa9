"""Search for the layer of a network that cannot be fused, and the reason in words."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from wdsearch.population._stacking import lift, stacked_state
from wdsearch.population._step_values import copies, size, step_alone, tolerance_of, wide
from wdsearch.population.module_attributes import fingerprint
from wdsearch.trial.batches import Batch
from wdsearch.trial.copying import copied_for_reading
from wdsearch.trial.functional_dropout import functions_with_rates
from wdsearch.trial.module import RegularizedModule

_FALLBACK_WARNING = "There is a performance drop"

_VMAP_ERRORS = {
    r"data-dependent control flow|Boolean value of Tensor": "it branches on a tensor's value (data-dependent control flow)",
    r"\.item\(\)": "it reads a number off a tensor (.item()), which differs from trial to trial",
    r"in-place arithmetic|in_place|inplace.*vmap|vmap.*inplace": "it changes in place a tensor that all trials share",
    r"setup_context": "its autograd.Function has no setup_context",
    r"dynamic|nonzero|masked_select|data-dependent": "the shape of a result depends on a tensor's values",
    r"randomness": "it draws random numbers that differ by trial",
}
"""Errors of vmap, in the words of users."""

Call = tuple[tuple[Any, ...], dict[str, Any]]


def culprit(modules: Sequence[RegularizedModule], batch: Batch) -> str | None:
    """First layer, innermost first, whose values differ when fused, with the reason; None if none is at fault by itself."""
    try:
        return _first_culprit(modules, batch)
    except Exception:  # whatever users' layers raise when they are called apart from their network
        return None


def _first_culprit(modules: Sequence[RegularizedModule], batch: Batch) -> str | None:
    calls = [_calls(module, batch) for module in copies(modules)]
    for path in calls[0]:
        calls_of_layer = [by_path[path] for by_path in calls if path in by_path]
        if len(calls_of_layer) < len(modules):
            return f"{named(modules[0], path)}: it is called in some trials only"
        if reason := _why_not_lifted(copies(modules), path, calls_of_layer):
            return f"{named(modules[0], path)}: {reason}"
    return None


def _calls(module: RegularizedModule, batch: Batch) -> dict[str, Call]:
    """Arguments of each layer's first call in a training step, in the order in which the calls return."""
    began: dict[str, Call] = {}
    finished: dict[str, Call] = {}
    with _hooked(module.network, began, finished):
        step_alone(module, batch)
    return finished


@contextmanager
def _hooked(network: nn.Module, began: dict[str, Call], finished: dict[str, Call]) -> Iterator[None]:
    """Record calls while it lasts, but for those that change an object among their arguments: they cannot be repeated."""
    handles, objects = [], dict[str, bytes]()
    for path, layer in network.named_modules(prefix="network"):

        def begin(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            began.setdefault(path, apply_to_collection((args, kwargs), Tensor, lambda x: x.detach().clone()))
            objects.setdefault(path, _objects(args, kwargs))

        def end(_: nn.Module, args: Any, kwargs: Any, outputs: Any, path: str = path) -> None:
            if path in finished or objects[path] == _objects(args, kwargs):
                finished.setdefault(path, began[path])

        handles.append(layer.register_forward_pre_hook(begin, with_kwargs=True))
        handles.append(layer.register_forward_hook(end, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _objects(args: Any, kwargs: Any) -> bytes:
    """Digest of what is no tensor among a call's arguments, such as attention's cache of keys."""
    return fingerprint(apply_to_collection((args, kwargs), Tensor, lambda _: None))


def _why_not_lifted(modules: Sequence[RegularizedModule], path: str, calls: Sequence[Call]) -> str | None:
    """Reason for which a layer's values under vmap differ from those of single calls; None if they agree."""
    parts = [nn.ModuleList([module.train().get_submodule(path), module.strengths]) for module in modules]
    params, buffers = stacked_state([copied_for_reading(part) for part in parts])
    try:
        inputs, axes = _stacked_inputs(calls, some_shared=bool(params or buffers))
        with no_fallbacks():
            lifted = lift(parts[0], partial(_outputs, modules[0], path, calls[0]), in_dims=(0, 0, axes))
            fused = lifted(params, buffers, inputs)
    except Exception as error:  # any operation that vmap does not support
        return in_words(error)
    tolerance = tolerance_of(modules[0])
    for row, (module, part, call) in enumerate(zip(modules, parts, calls, strict=True)):
        alone = _outputs(module, path, call, _tensors(call))
        for one, other in zip(alone, fused, strict=True):
            difference = size(wide(one) - wide(other[row])) / max(size(one), 1e-30)
            if difference > tolerance:
                return other_numbers(difference, "output")
        for name, value in part.named_buffers():
            if size(wide(value) - wide(buffers[name][row])) > tolerance * max(size(value), 1e-30):
                short = name.removeprefix("0.")
                return f"its buffer {short} is assigned anew; it can be fused if the buffer is changed in place (copy_, mul_)"
    return None


def _stacked_inputs(calls: Sequence[Call], some_shared: bool) -> tuple[list[Tensor], list[int | None]]:
    """Tensors of the trials' calls with their axes of trials; None for one that all trials share, as the edges of a graph."""
    columns = list(zip(*map(_tensors, calls), strict=True))
    shared = [some_shared and all(torch.equal(one, column[0]) for one in column) for column in columns]
    inputs = [column[0] if one else torch.stack(column) for one, column in zip(shared, columns, strict=True)]
    return inputs, [None if one else 0 for one in shared]


def _outputs(module: RegularizedModule, path: str, call: Call, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs of a layer for the tensors of a call, with the noise of the first batch."""
    module.rewind_noise(0, 0)
    args, kwargs = _with_tensors(call, inputs)
    with functions_with_rates(module, module.function_dropout):
        return _tensors(module.get_submodule(path)(*args, **kwargs))


@contextmanager
def no_fallbacks() -> Iterator[None]:
    """Raise an error where vmap has no batching rule for an operation and would loop over the trials."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_FALLBACK_WARNING)
        yield


def other_numbers(difference: float, kind: str) -> str:
    words = {"evaluation": "values in evaluation", "objective": "loss"}.get(kind, f"{kind}s")
    extent = f"differ by {difference:.0%}" if 0.01 <= difference < 10 else "differ"
    return f"it gives other numbers when fused (its {words} {extent})"


def _tensors(values: Any) -> list[Tensor]:
    """All tensors in a collection, in order."""
    tensors: list[Tensor] = []
    apply_to_collection(values, Tensor, tensors.append)
    return tensors


def _with_tensors(call: Call, tensors: Sequence[Tensor]) -> Call:
    """Copy of a call with its tensors replaced, in order."""
    replacements = iter(tensors)
    return apply_to_collection(call, Tensor, lambda _: next(replacements))


def named(module: RegularizedModule, path: str) -> str:
    """Path of a layer in the network and its type, for messages."""
    short = path.removeprefix("network").removeprefix(".")
    kind = type(module.get_submodule(path)).__name__ if path else type(module).__name__
    return f"{short} ({kind})" if short else f"the network ({kind})"


def in_words(error: Exception) -> str:
    """Reason for which vmap cannot run a network, from the error that it raised."""
    text = str(error)
    if isinstance(error, UserWarning):
        return f"vmap cannot batch {re.search(r'aten::[a-z_0-9]+|$', text)[0] or 'it'}"  # type: ignore[index]
    for pattern, words in _VMAP_ERRORS.items():
        if re.search(pattern, text):
            return words
    line = type(error).__name__ if isinstance(error, KeyError) or not text.strip() else text.strip().splitlines()[0]
    return f"vmap cannot run it: {line if len(line) <= 120 else line[:117] + '...'}"
