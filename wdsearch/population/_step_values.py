"""Values of a few training steps, of trials alone and fused, and how far apart they are."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wdsearch.population.fused import FusedCohort
from wdsearch.trial.batches import Batch
from wdsearch.trial.copying import copied
from wdsearch.trial.module import VALIDATION, RegularizedModule

STEP = 0.01
"""Length of the steps between the batches that are compared, relative to the largest entry of a gradient above 1."""

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference, relative to the largest value of its kind, that rounding explains in a few steps."""

StepValues = dict[str, Tensor]
"""Values of one trial's step by name: objective, gradients, evaluation, and the parameters and buffers after it."""


def copies(modules: Sequence[RegularizedModule]) -> list[RegularizedModule]:
    """Independent copies of trials; raises CopyError."""
    return [copied(module) for module in modules]


def tolerance_of(module: RegularizedModule) -> float:
    """Largest relative difference that rounding explains, by the dtype of the weights."""
    return TOLERANCES.get(next(module.parameters()).dtype, 1e-1)


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
    module.zero_grad()
    objective = module.objective(batch)
    objective.backward()
    gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    module.zero_grad()
    with torch.no_grad():
        module.eval().rewind_noise(0, index, VALIDATION)
        sums = module.evaluation(batch)
    values = {"objective": objective.detach()} | {f"evaluation of {name}": value for name, value in sums.items()}
    values |= {f"buffer {name}": value.clone() for name, value in module.named_buffers()}
    values |= {f"parameter {name}": value.detach().clone() for name, value in module.named_parameters()}
    return values | {f"gradient {name}": gradient for name, gradient in gradients.items()}


def fused_steps(
    modules: Sequence[RegularizedModule], batches: Sequence[Batch], max_fused: int
) -> list[list[StepValues]]:
    """Values as of `steps_alone` for all trials, in calls of at most `max_fused`."""
    cohort = FusedCohort(dict(enumerate(copies(modules))), len(batches), modules[0].device, max_fused)
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
    cohort.begin()  # an average is then the present weights
    columns |= {f"evaluation of {name}": value for name, value in cohort.evaluate(batch, index).items()}
    stacks = cohort.buffers | {name: value.detach() for name, value in cohort.params.items()}
    columns |= {f"buffer {name}": stacks[name] for name, _ in cohort.template.named_buffers()}
    return columns | {f"parameter {name}": stacks[name] for name, _ in cohort.template.named_parameters()}


@torch.no_grad()
def _descend(parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None]) -> None:
    """One step of gradient descent, so short that no loss explodes."""
    largest = max((size(gradient) for gradient in gradients.values() if gradient is not None), default=0.0)
    for name, gradient in gradients.items():
        if gradient is not None:
            parameters[name].sub_(gradient * (STEP / max(1.0, largest)))


def distance(alone: Sequence[list[StepValues]], fused: Sequence[list[StepValues]]) -> tuple[float, str]:
    """Largest difference, relative to the largest value of its kind in its step, and its kind; infinite if a value is missing."""
    largest = (0.0, "objective")
    for trace, other_trace in zip(alone, fused, strict=True):
        for one, other in zip(trace, other_trace, strict=True):
            if one.keys() != other.keys():
                return float("inf"), "gradient"
            scales = {kind: max(size(v) for k, v in one.items() if k.startswith(kind)) for kind in _kinds(one)}
            for name, value in one.items():
                kind = name.partition(" ")[0]
                largest = max(largest, (size(wide(value) - wide(other[name])) / max(scales[kind], 1e-30), kind))
    return largest


def _kinds(values: StepValues) -> set[str]:
    return {name.partition(" ")[0] for name in values}


def wide(value: Tensor) -> Tensor:
    dense = value.detach().to_dense() if value.layout is not torch.strided else value.detach()
    return dense.to(torch.complex128 if dense.is_complex() else torch.float64)


def size(value: Tensor) -> float:
    """Largest absolute entry; infinite for NaN."""
    if not value.numel():
        return 0.0
    return float(wide(value).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max())
