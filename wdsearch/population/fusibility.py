"""Test for fusibility: compares one fused step of a few different trials with the same steps one after another."""

import copy
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from wdsearch.population.fused import FusedCohort
from wdsearch.population.module_attributes import changed_attribute, plain_attributes
from wdsearch.trial.batches import Batch
from wdsearch.trial.module import RegularizedModule
from wdsearch.types import Params

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference, relative to the largest value of its kind, that rounding explains in one step."""

MOST_CONVOLVED = 50_000_000
"""Multiplications by convolutions, per trial and step, up to which fused trials are faster on a CPU."""
_FALLBACK_WARNING = "There is a performance drop"

StepValues = dict[str, Tensor]
"""Values of one trial's step by name: the objective, gradients, buffers and sums of an evaluation."""


def why_alone(modules: Sequence[RegularizedModule], batch: Batch) -> str | None:
    """Reason, with the layer, for which trials of one network cannot be fused; None if they can be.

    The modules cannot be used afterwards: noise is added to their weights.
    """
    _move_apart(modules)
    modules, batch = _in_double(modules, batch)
    alone = [step_alone(copy.deepcopy(module), batch) for module in modules]
    attribute = _attribute_kept_between_batches(copy.deepcopy(modules[0]), batch)
    if attribute:
        path, _, name = attribute.rpartition(".")
        return f"{_named(modules[0], path)} keeps {name} from one batch to the next, and not in a buffer"
    try:
        with _no_fallbacks():
            fused = _fused_step(modules, batch)
    except Exception as error:  # any operation that vmap does not support
        return _culprit(modules, batch) or f"the network: {_first_line(error)}"
    distance = _distance(alone, fused)
    if distance <= _tolerance(modules[0]):
        return None
    return _culprit(modules, batch) or f"the network: {_other_numbers(distance)}"


def slow_when_fused(module: RegularizedModule, batch: Batch, rows: int, device: torch.device) -> str | None:
    """Reason, with a convolution, for which fused trials are slower with batches of `rows` rows; None if they are not.

    vmap turns convolutions into grouped ones, for which CPUs have no fast kernels: below 40 million multiplications per trial
    and step fusing is faster (1.1 to 2.8 times), above 65 million slower (0.3 to 0.8 times; `tests/benchmarks/networks.py`).
    A fixed rule rather than a timing: the two round differently, and a study is to be reproducible.
    """
    if device.type != "cpu":
        return None
    counts: dict[str, int] = {}
    handles = [
        layer.register_forward_hook(partial(_count, counts, path))
        for path, layer in module.named_modules()
        if isinstance(layer, nn.modules.conv._ConvNd)
    ]
    if not handles:
        return None
    step_alone(module, batch)
    for handle in handles:
        handle.remove()
    largest = max(counts, key=lambda path: counts[path], default="")
    rows_counted = max(1, module.rows(batch)) * 2  # in a step and in an evaluation
    if sum(counts.values()) * rows / rows_counted <= MOST_CONVOLVED:
        return None
    return f"{_named(module, largest)}: on a CPU, convolutions as large as these are faster one trial after another"


def _count(counts: dict[str, int], path: str, layer: nn.Module, inputs: Any, outputs: Tensor) -> None:
    """Add a call's multiplications: one kernel for each output or, in a transposed convolution, for each input."""
    weight = cast(Tensor, layer.weight)
    positions = inputs[0] if getattr(layer, "transposed", False) else outputs
    counts[path] = counts.get(path, 0) + positions.numel() * weight[0].numel()


def _move_apart(modules: Sequence[RegularizedModule]) -> None:
    """Add different noise to each trial's weights, so that mixed-up trials are noticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in modules:
            for value in module.parameters():
                noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
                value.add_((0.05 * noise).to(value))


def _in_double(modules: Sequence[RegularizedModule], batch: Batch) -> tuple[list[RegularizedModule], Batch]:
    """Modules and batch in float64, where rounding hides no difference; unchanged if the network needs another dtype."""
    wider = [copy.deepcopy(module).double() for module in modules]
    doubled = apply_to_collection(batch, Tensor, lambda x: x.double() if x.is_floating_point() else x)
    try:
        step_alone(copy.deepcopy(wider[0]), doubled)
    except Exception:  # a dtype fixed in the network
        return list(modules), batch
    return wider, doubled


def _tolerance(module: RegularizedModule) -> float:
    return TOLERANCES.get(next(module.parameters()).dtype, 1e-1)


# -- one step ----------------------------------------------------------------------------------------------------


def step_alone(module: RegularizedModule, batch: Batch, index: int = 0) -> StepValues:
    """Objective, gradients, updated buffers and evaluation of a single trial."""
    module.train()
    module.rewind_noise(0, index)
    objective = module.objective(batch)
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    names, parameters = zip(*trained, strict=True)
    gradients = torch.autograd.grad(objective, parameters, allow_unused=True)
    with torch.no_grad():
        sums = module.eval().evaluation(batch)
    values = {"objective": objective.detach()} | {f"evaluation of {name}": value for name, value in sums.items()}
    values |= {f"buffer {name}": value.clone() for name, value in module.named_buffers()}
    return values | {
        f"gradient {name}": value for name, value in zip(names, gradients, strict=True) if value is not None
    }


def _fused_step(modules: Sequence[RegularizedModule], batch: Batch) -> list[StepValues]:
    """Values as of `step_alone` for all trials, by one call."""
    cohort = FusedCohort(dict(enumerate(copy.deepcopy(list(modules)))), 1, modules[0].device, len(modules))
    rows = slice(0, len(modules))
    objective, gradients = cohort.gradients(rows, batch, 0)
    columns = {"objective": objective} | {f"evaluation of {k}": value for k, value in cohort.evaluate(batch).items()}
    columns |= {f"buffer {name}": cohort.buffers[name] for name, _ in cohort.template.named_buffers()}
    named = zip(cohort.params, gradients, strict=True)
    columns |= {f"gradient {name}": value for name, value in named if value is not None}
    return [{name: value[row] for name, value in columns.items()} for row in range(len(modules))]


def _distance(alone: Sequence[StepValues], fused: Sequence[StepValues]) -> float:
    """Largest difference, relative to the largest value of its kind in its trial; infinite if a value is missing."""
    largest = 0.0
    for one, other in zip(alone, fused, strict=True):
        if one.keys() != other.keys():
            return float("inf")
        scales = {kind: max(_size(v) for k, v in one.items() if k.startswith(kind)) for kind in _kinds(one)}
        for name, value in one.items():
            scale = scales[name.partition(" ")[0]]
            largest = max(largest, _size(value.double() - other[name].double()) / max(scale, 1e-30))
    return largest


def _kinds(values: StepValues) -> set[str]:
    return {name.partition(" ")[0] for name in values}


def _size(value: Tensor) -> float:
    """Largest absolute entry; infinite for NaN."""
    if not value.numel():
        return 0.0
    return float(value.detach().double().abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def _attribute_kept_between_batches(module: RegularizedModule, batch: Batch) -> str | None:
    """Path of a plain attribute that changes with every batch; a cache that the first one fills does not count."""
    step_alone(module, batch)
    before = plain_attributes(module)
    step_alone(module, batch, 1)
    return changed_attribute(before, plain_attributes(module))


# -- the layer at fault ------------------------------------------------------------------------------------------

Call = tuple[tuple[Any, ...], dict[str, Any]]


def _culprit(modules: Sequence[RegularizedModule], batch: Batch) -> str | None:
    """First layer, innermost first, whose values differ when fused, with the reason."""
    calls = [_calls(copy.deepcopy(module), batch) for module in modules]
    for path in calls[0]:
        calls_of_layer = [by_path[path] for by_path in calls if path in by_path]
        if len(calls_of_layer) < len(modules):
            return f"{_named(modules[0], path)}: it is called in some trials only"
        reason = _why_not_lifted(copy.deepcopy(list(modules)), path, calls_of_layer)
        if reason:
            return f"{_named(modules[0], path)}: {reason}"
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
    handles = []
    for path, layer in network.named_modules(prefix="network"):

        def begin(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            began.setdefault(path, apply_to_collection((args, kwargs), Tensor, lambda x: x.detach().clone()))

        def end(_: nn.Module, args: Any, outputs: Any, path: str = path) -> None:
            finished.setdefault(path, began[path])

        handles += [layer.register_forward_pre_hook(begin, with_kwargs=True), layer.register_forward_hook(end)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _why_not_lifted(modules: Sequence[RegularizedModule], path: str, calls: Sequence[Call]) -> str | None:
    """Reason for which a layer's values under vmap differ from those of single calls; None if they agree."""
    layers = [module.train().get_submodule(path) for module in modules]
    params, buffers = stack_module_state(copy.deepcopy(layers))

    def of_one(params: Params, buffers: Params, inputs: list[Tensor]) -> list[Tensor]:
        args, kwargs = _with_tensors(calls[0], inputs)
        return _tensors(functional_call(layers[0], (params, buffers), args, kwargs))

    try:
        inputs = [torch.stack(of_trials) for of_trials in zip(*map(_tensors, calls), strict=True)]
        modules[0].rewind_noise(0, 0)
        with _no_fallbacks():
            fused = vmap(of_one, randomness="same")(params, buffers, inputs)
    except Exception as error:  # any operation that vmap does not support
        return _first_line(error)
    tolerance = _tolerance(modules[0])
    for row, (module, layer, (args, kwargs)) in enumerate(zip(modules, layers, calls, strict=True)):
        module.rewind_noise(0, 0)
        alone = _tensors(layer(*args, **kwargs))
        for one, other in zip(alone, fused, strict=True):
            difference = _size(one.double() - other[row].double())
            if difference > tolerance * max(_size(one), 1e-30):
                return _other_numbers(difference)
        for name, value in layer.named_buffers():
            if _size(value.double() - buffers[name][row].double()) > tolerance * max(_size(value), 1e-30):
                return f"its buffer {name} is assigned anew; it can be fused if the buffer is changed in place (copy_, mul_)"
    return None


@contextmanager
def _no_fallbacks() -> Iterator[None]:
    """Raise an error where vmap has no batching rule for an operation and would loop over the trials."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_FALLBACK_WARNING)
        yield


def _other_numbers(difference: float) -> str:
    return f"it gives other numbers when fused (they differ by {difference:.0e})"


def _tensors(values: Any) -> list[Tensor]:
    """All tensors in a collection, in order."""
    tensors: list[Tensor] = []
    apply_to_collection(values, Tensor, tensors.append)
    return tensors


def _with_tensors(call: Call, tensors: Sequence[Tensor]) -> Call:
    """Copy of a call with its tensors replaced, in order."""
    replacements = iter(tensors)
    return apply_to_collection(call, Tensor, lambda _: next(replacements))


def _named(module: RegularizedModule, path: str) -> str:
    """Path of a layer in the network and its type, for messages."""
    short = path.removeprefix("network").removeprefix(".")
    kind = type(module.get_submodule(path)).__name__ if path else type(module).__name__
    return f"{short} ({kind})" if short else f"the network ({kind})"


def _first_line(error: Exception) -> str:
    if isinstance(error, UserWarning):
        return f"vmap cannot batch {re.search(r'aten::[a-z_0-9]+|$', str(error))[0] or 'it'}"  # type: ignore[index]
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 160 else f"{line[:157]}..."
