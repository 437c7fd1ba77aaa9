"""Test for fusibility: compares one fused step of a few different trials with the same steps one after another."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from wdsearch.population._culprit import culprit, in_words, named, no_fallbacks, other_numbers
from wdsearch.population._step_values import copies, distance, fused_steps, step_alone, steps_alone, tolerance_of
from wdsearch.population.module_attributes import changed_attribute, fingerprints
from wdsearch.trial.batches import Batch, converted
from wdsearch.trial.copying import CopyError, copied, hooked_parameter
from wdsearch.trial.module import RegularizedModule

MOST_CONVOLVED = 50_000_000
"""Multiplications by convolutions, per trial and step, up to which fused trials are faster on a CPU."""


def why_alone(modules: Sequence[RegularizedModule], batch: Batch, *others: Batch) -> str | None:
    """Reason, with the layer, for which trials of one network cannot be fused; None if they can be.

    A few steps on the batches are compared, together and in calls of one and two trials, with those of each trial alone.
    The modules cannot be used afterwards: noise is added to their weights.
    """
    if hooked := hooked_parameter(modules[0].network):
        return f"the parameter {hooked} has a hook after its gradient is accumulated, which is called for a trial alone only"
    if complex_one := next((name for name, value in modules[0].network.named_parameters() if value.is_complex()), None):
        return f"the parameter {complex_one} is complex, and the optimizers of fused trials take real ones"
    if unliftable := _unliftable(modules[0]):
        return unliftable
    try:
        return _why_alone(modules, [batch, *others])
    except CopyError as error:
        return f"the network: {error}"


def _why_alone(modules: Sequence[RegularizedModule], batches: Sequence[Batch]) -> str | None:
    _move_apart(modules)
    modules, batches = _in_double(modules, batches)
    first, *rest = copies(modules)
    before = fingerprints(first)
    alone = [steps_alone(first, batches)]
    if attribute := changed_attribute(before, fingerprints(first)) and _kept_attribute(modules[0], batches):
        path, _, name = attribute.rpartition(".")
        return f"{named(modules[0], path)} keeps {name} from one batch to the next, and not in a buffer"
    tolerance = tolerance_of(modules[0])
    if distance(alone, [steps_alone(copied(modules[0]), batches)])[0] > tolerance:
        return "the network: it gives other numbers when it is called again with the same weights, batches and seeds"
    alone += [steps_alone(module, batches) for module in rest]
    try:
        with no_fallbacks():
            traces = [fused_steps(modules, batches, max_fused) for max_fused in (len(modules), len(modules) - 1)]
    except Exception as error:  # any operation that vmap does not support
        return culprit(modules, batches[0]) or f"the network: {in_words(error)}"
    difference, kind = max(distance(alone, trace) for trace in traces)
    if difference <= tolerance:
        return None
    return culprit(modules, batches[0]) or f"the network: {other_numbers(difference, kind)}"


def _unliftable(module: RegularizedModule) -> str | None:
    """Reason, with the layer, for which a network is not tried."""
    for path, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            return f"{named(module, path)} is compiled by torch.jit, and vmap cannot look into it"
        if type(layer).get_extra_state is not nn.Module.get_extra_state:
            return f"{named(module, path)} keeps extra state, which fused trials cannot hold"
    return None


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
    return f"{named(module, largest)}: on a CPU, convolutions as large as these are faster one trial after another"


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
    wider = [module.double() for module in copies(modules)]
    doubled = converted(list(batches), lambda x: x.double() if x.is_floating_point() else x)
    try:
        steps_alone(copied(wider[0]), doubled)
    except Exception:  # a dtype fixed in the network
        return modules, batches
    return wider, doubled
