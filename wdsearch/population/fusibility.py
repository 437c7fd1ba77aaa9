"""Test for fusibility: compares one fused step of a few different trials with the same steps one after another."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from wdsearch.population.fused import FusedCohort, lift, stacked_state
from wdsearch.population.module_attributes import changed_attribute, fingerprints
from wdsearch.trial.batches import Batch
from wdsearch.trial.copying import CopyError, copied, copied_for_reading, parameter_hook
from wdsearch.trial.functional_dropout import functions_with_rates
from wdsearch.trial.module import VALIDATION, RegularizedModule

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference, relative to the largest value of its kind, that rounding explains in one step."""

MOST_CONVOLVED = 50_000_000
"""Multiplications by convolutions, per trial and step, up to which fused trials are faster on a CPU."""
_FALLBACK_WARNING = "There is a performance drop"

STEP = 0.01
"""Length of the steps between the batches that are compared, relative to the largest entry of a gradient above 1."""

_VMAP_ERRORS = {
    r"data-dependent control flow|Boolean value of Tensor": "it branches on a tensor's value (data-dependent control flow)",
    r"\.item\(\)": "it reads a number off a tensor (.item()), which differs from trial to trial",
    r"in-place arithmetic|in_place|inplace.*vmap|vmap.*inplace": "it changes in place a tensor that all trials share",
    r"setup_context": "its autograd.Function has no setup_context",
    r"dynamic|nonzero|masked_select|data-dependent": "the shape of a result depends on a tensor's values",
    r"randomness": "it draws random numbers that differ by trial",
}
"""Errors of vmap, in the words of users."""

StepValues = dict[str, Tensor]
"""Values of one trial's step by name: the objective, gradients, buffers and sums of an evaluation."""


def why_alone(modules: Sequence[RegularizedModule], batch: Batch, *others: Batch) -> str | None:
    """Reason, with the layer, for which trials of one network cannot be fused; None if they can be.

    A few steps on the batches are compared, together and in calls of one and two trials, with those of each trial alone.
    The modules cannot be used afterwards: noise is added to their weights.
    """
    if hooked := parameter_hook(modules[0].network):
        return f"the parameter {hooked} has a hook, which is called for a trial alone only"
    try:
        return _why_alone(modules, [batch, *others])
    except CopyError as error:
        return f"the network: {error}"


def _why_alone(modules: Sequence[RegularizedModule], batches: Sequence[Batch]) -> str | None:
    _move_apart(modules)
    modules, batches = _in_double(modules, batches)
    first, *rest = _copies(modules)
    before = fingerprints(first)
    alone = [steps_alone(first, batches)]
    if attribute := changed_attribute(before, fingerprints(first)) and _kept_attribute(modules[0], batches):
        path, _, name = attribute.rpartition(".")
        return f"{_named(modules[0], path)} keeps {name} from one batch to the next, and not in a buffer"
    if _distance(alone, [steps_alone(copied(modules[0]), batches)])[0] > 0:
        return "the network: it gives other numbers when it is called again with the same weights, batches and seeds"
    alone += [steps_alone(module, batches) for module in rest]
    try:
        with _no_fallbacks():
            traces = [_fused_steps(modules, batches, max_fused) for max_fused in (len(modules), 2)]
    except Exception as error:  # any operation that vmap does not support
        return _culprit(modules, batches[0]) or f"the network: {_in_words(error)}"
    distance, kind = max(_distance(alone, fused) for fused in traces)
    if distance <= _tolerance(modules[0]):
        return None
    return _culprit(modules, batches[0]) or f"the network: {_other_numbers(distance, kind)}"


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


def _in_double(
    modules: Sequence[RegularizedModule], batches: Sequence[Batch]
) -> tuple[Sequence[RegularizedModule], Sequence[Batch]]:
    """Modules and batches in float64, where rounding hides no difference; unchanged if the network needs another dtype."""
    wider = [module.double() for module in _copies(modules)]
    doubled = apply_to_collection(list(batches), Tensor, lambda x: x.double() if x.is_floating_point() else x)
    try:
        steps_alone(copied(wider[0]), doubled)
    except Exception:  # a dtype fixed in the network
        return modules, batches
    return wider, doubled


def _copies(modules: Sequence[RegularizedModule]) -> list[RegularizedModule]:
    return [copied(module) for module in modules]


def _tolerance(module: RegularizedModule) -> float:
    return TOLERANCES.get(next(module.parameters()).dtype, 1e-1)


# -- a few steps -------------------------------------------------------------------------------------------------


def steps_alone(module: RegularizedModule, batches: Sequence[Batch]) -> list[StepValues]:
    """Values of a few steps of a single trial, each on a batch of its own."""
    trace = []
    for index, batch in enumerate(batches):
        values = step_alone(module, batch, index)
        trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
        _descend(trained, {name: values.get(f"gradient {name}") for name in trained})
        trace.append(values)
    return trace


def step_alone(module: RegularizedModule, batch: Batch, index: int = 0) -> StepValues:
    """Objective, gradients, evaluation, and parameters and buffers after the calls, of a single trial."""
    module.train()
    module.rewind_noise(0, index)
    objective = module.objective(batch)
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    names, parameters = zip(*trained, strict=True)
    gradients = torch.autograd.grad(objective, parameters, allow_unused=True)
    with torch.no_grad():
        module.eval().rewind_noise(0, index, VALIDATION)
        sums = module.evaluation(batch)
    values = {"objective": objective.detach()} | {f"evaluation of {name}": value for name, value in sums.items()}
    values |= {f"buffer {name}": value.clone() for name, value in module.named_buffers()}
    values |= {f"parameter {name}": value.detach().clone() for name, value in module.named_parameters()}
    return values | {
        f"gradient {name}": value for name, value in zip(names, gradients, strict=True) if value is not None
    }


def _fused_steps(
    modules: Sequence[RegularizedModule], batches: Sequence[Batch], max_fused: int
) -> list[list[StepValues]]:
    """Values as of `steps_alone` for all trials, in calls of at most `max_fused`."""
    cohort = FusedCohort(dict(enumerate(_copies(modules))), len(batches), modules[0].device, max_fused)
    traces: list[list[StepValues]] = [[] for _ in modules]
    for index, batch in enumerate(batches):
        columns = _fused_step(cohort, batch, index)
        for row, trace in enumerate(traces):
            trace.append({name: value[row].clone() for name, value in columns.items()})
        for row in range(len(modules)):
            of_trial = {name: value.detach()[row] for name, value in cohort.params.items()}
            _descend(of_trial, {name: traces[row][-1].get(f"gradient {name}") for name in of_trial})
    return traces


def _fused_step(cohort: FusedCohort, batch: Batch, index: int) -> StepValues:
    """Values as of `step_alone`, stacked."""
    parts = [(rows, *cohort.gradients(rows, batch, index)) for rows in cohort.slices()]
    columns = {"objective": torch.cat([objective for _, objective, _ in parts])}
    for name, *gradients in zip(cohort.params, *(gradients for _, _, gradients in parts), strict=True):
        if gradients[0] is not None:
            columns[f"gradient {name}"] = torch.cat(gradients)
    columns |= {f"evaluation of {name}": value for name, value in cohort.evaluate(batch, index).items()}
    stacks = cohort.buffers | {name: value.detach() for name, value in cohort.params.items()}
    columns |= {f"buffer {name}": stacks[name] for name, _ in cohort.template.named_buffers()}
    return columns | {f"parameter {name}": stacks[name] for name, _ in cohort.template.named_parameters()}


@torch.no_grad()
def _descend(parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None]) -> None:
    """One step of gradient descent, so short that no loss explodes."""
    largest = max((_size(gradient) for gradient in gradients.values() if gradient is not None), default=0.0)
    for name, gradient in gradients.items():
        if gradient is not None:
            parameters[name].sub_(gradient * (STEP / max(1.0, largest)))


def _distance(alone: Sequence[list[StepValues]], fused: Sequence[list[StepValues]]) -> tuple[float, str]:
    """Largest difference, relative to the largest value of its kind in its step, and its kind; infinite if a value is missing."""
    largest = (0.0, "objective")
    for trace, other_trace in zip(alone, fused, strict=True):
        for one, other in zip(trace, other_trace, strict=True):
            if one.keys() != other.keys():
                return float("inf"), "gradient"
            scales = {kind: max(_size(v) for k, v in one.items() if k.startswith(kind)) for kind in _kinds(one)}
            for name, value in one.items():
                kind = name.partition(" ")[0]
                largest = max(largest, (_size(_wide(value) - _wide(other[name])) / max(scales[kind], 1e-30), kind))
    return largest


def _kinds(values: StepValues) -> set[str]:
    return {name.partition(" ")[0] for name in values}


def _wide(value: Tensor) -> Tensor:
    dense = value.detach().to_dense() if value.layout is not torch.strided else value.detach()
    return dense.to(torch.complex128 if dense.is_complex() else torch.float64)


def _size(value: Tensor) -> float:
    """Largest absolute entry; infinite for NaN."""
    if not value.numel():
        return 0.0
    return float(_wide(value).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def _kept_attribute(module: RegularizedModule, batches: Sequence[Batch]) -> str | None:
    """Path of an attribute that changes with every batch; a cache that the first one fills does not count."""
    module, batches = copied(module), [*batches, *batches[:1]]
    before: Mapping[str, bytes] | None = None
    for index, batch in enumerate(batches):
        step_alone(module, batch, index)
        after = fingerprints(module)
        if before is not None and (attribute := changed_attribute(before, after)):
            return attribute
        before = after
    return None


# -- the layer at fault ------------------------------------------------------------------------------------------

Call = tuple[tuple[Any, ...], dict[str, Any]]


def _culprit(modules: Sequence[RegularizedModule], batch: Batch) -> str | None:
    """First layer, innermost first, whose values differ when fused, with the reason; None if none is at fault by itself."""
    try:
        return _first_culprit(modules, batch)
    except Exception:  # whatever users' layers raise when they are called apart from their network
        return None


def _first_culprit(modules: Sequence[RegularizedModule], batch: Batch) -> str | None:
    calls = [_calls(module, batch) for module in _copies(modules)]
    for path in calls[0]:
        calls_of_layer = [by_path[path] for by_path in calls if path in by_path]
        if len(calls_of_layer) < len(modules):
            return f"{_named(modules[0], path)}: it is called in some trials only"
        if reason := _why_not_lifted(_copies(modules), path, calls_of_layer):
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
    params, buffers = stacked_state([copied_for_reading(layer) for layer in layers])

    def of_one(inputs: list[Tensor]) -> list[Tensor]:
        args, kwargs = _with_tensors(calls[0], inputs)
        with functions_with_rates(modules[0]):
            return _tensors(layers[0](*args, **kwargs))

    try:
        inputs = [torch.stack(of_trials) for of_trials in zip(*map(_tensors, calls), strict=True)]
        modules[0].rewind_noise(0, 0)
        with _no_fallbacks():
            fused = lift(layers[0], of_one, in_dims=(0, 0, 0))(params, buffers, inputs)
    except Exception as error:  # any operation that vmap does not support
        return _in_words(error)
    tolerance = _tolerance(modules[0])
    for row, (module, layer, (args, kwargs)) in enumerate(zip(modules, layers, calls, strict=True)):
        module.rewind_noise(0, 0)
        alone = _tensors(layer(*args, **kwargs))
        for one, other in zip(alone, fused, strict=True):
            difference = _size(_wide(one) - _wide(other[row])) / max(_size(one), 1e-30)
            if difference > tolerance:
                return _other_numbers(difference, "output")
        for name, value in layer.named_buffers():
            if _size(_wide(value) - _wide(buffers[name][row])) > tolerance * max(_size(value), 1e-30):
                return f"its buffer {name} is assigned anew; it can be fused if the buffer is changed in place (copy_, mul_)"
    return None


@contextmanager
def _no_fallbacks() -> Iterator[None]:
    """Raise an error where vmap has no batching rule for an operation and would loop over the trials."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_FALLBACK_WARNING)
        yield


def _other_numbers(difference: float, kind: str) -> str:
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


def _named(module: RegularizedModule, path: str) -> str:
    """Path of a layer in the network and its type, for messages."""
    short = path.removeprefix("network").removeprefix(".")
    kind = type(module.get_submodule(path)).__name__ if path else type(module).__name__
    return f"{short} ({kind})" if short else f"the network ({kind})"


def _in_words(error: Exception) -> str:
    """What in a network vmap cannot run."""
    text = str(error)
    if isinstance(error, UserWarning):
        return f"vmap cannot batch {re.search(r'aten::[a-z_0-9]+|$', text)[0] or 'it'}"  # type: ignore[index]
    for pattern, words in _VMAP_ERRORS.items():
        if re.search(pattern, text):
            return words
    line = (text.strip() or type(error).__name__).splitlines()[0]
    return f"vmap cannot run it: {line if len(line) <= 120 else line[:117] + '...'}"
