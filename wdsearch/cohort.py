"""Trials of one age, stacked along the axis K: one vmapped call trains them all, each exactly as if alone."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.func import stack_module_state, vmap

from wdsearch.module import Batch, RegularizedModule
from wdsearch.optim import OPTIMIZERS, PopulationOptimizer, empty_stack
from wdsearch.tasks import Sums, losses_and_gaps
from wdsearch.types import Params

FINISHED, STOPPED_EARLY, DIVERGED = "finished", "stopped early", "diverged"


@dataclass(frozen=True)
class TrialEpoch:
    """What one epoch showed of one trial: its age after it, the metrics of its result so far, and why it ends, if it does.

    `metrics` are those of this epoch, `result` those of the state by which the trial is judged: the same, or the best
    epoch's if it stops early.
    """

    number: int
    age: int
    metrics: dict[str, float]
    result: dict[str, float]
    end: str | None


def _lift(module: RegularizedModule, method: str) -> Callable[[Params, Params, Batch], Any]:
    """A method of one trial as a function of stacked parameters and buffers and of one batch for all.

    As `torch.func.functional_call`, which finds the module's tensors anew at each call; here they are found once.
    """
    names = {id(value): name for name, value in chain(module.named_parameters(), module.named_buffers())}
    tables: list[dict[str, Any]] = [table for part in module.modules() for table in (part._parameters, part._buffers)]
    # a tied weight has one name and several places
    places = [(table, key, names[id(table[key])]) for table in tables for key in table if table[key] is not None]
    own = [table[key] for table, key, _ in places]
    function = getattr(module, method)

    def of_one(params: Params, buffers: Params, batch: Batch) -> Any:
        state = params | buffers
        try:
            for table, key, name in places:
                table[key] = state[name]
            return function(batch)
        finally:
            for (table, key, _), value in zip(places, own, strict=True):
                table[key] = value

    return vmap(of_one, in_dims=(0, 0, None), randomness="same")


@dataclass
class Cohort:
    """Trials of one age and one network shape, stacked: they share batches and noise and are one vmapped call.

    `places` bounds how many trials one call holds; more are called in slices, with the same numbers.
    """

    numbers: list[int]
    template: RegularizedModule
    params: Params
    buffers: Params
    optimizer: PopulationOptimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    places: int
    patience: list[float]
    age: int = 0
    best: list[dict[str, float]] = field(default_factory=list)
    best_age: list[int] = field(default_factory=list)
    best_state: Params = field(default_factory=dict)
    objective: Tensor | float = 0.0
    rows_seen: int = 0

    def __post_init__(self) -> None:
        self._vmapped = {method: _lift(self.template, method) for method in ("objective", "evaluation")}
        self._train(True)

    @property
    def device(self) -> torch.device:
        """Where the trials are."""
        return next(iter(self.params.values())).device

    def _train(self, mode: bool) -> None:
        if self.template.training != mode:
            self.template.train(mode)

    @classmethod
    def of(cls, trials: Mapping[int, RegularizedModule], steps: int, places: int, device: torch.device) -> "Cohort":
        """Stack trials of age 0 that will train for `steps` steps."""
        modules = [module.to(device) for module in trials.values()]
        template, recipe = copy.deepcopy(modules[0]), modules[0].recipe
        params, buffers = stack_module_state(modules)
        params = {name: value.detach().requires_grad_() for name, value in params.items()}
        groups: list[dict[str, Any]] = [
            {"params": [params[name] for name in template.decayed], "decays": bool(template.acting("decay"))},
            {"params": [value for name, value in params.items() if name not in set(template.decayed)]},
        ]
        rates = torch.stack([module.rates.as_dict()["lr"] for module in modules]).cpu()
        decay = torch.stack([module.decay(module.strengths.as_dict()) for module in modules]).cpu()
        groups = [group for group in groups if group["params"]]
        optimizer = OPTIMIZERS[recipe.optimizer](groups, rates, decay, recipe)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.factor(step, steps))
        patience = [module.patience() for module in modules]
        cohort = cls(list(trials), template, params, buffers, optimizer, schedule, max(1, places), patience)
        cohort.best, cohort.best_age = [{} for _ in modules], [0 for _ in modules]
        return cohort

    # -- one call for all trials -------------------------------------------------------------------------------

    def slices(self) -> Iterator[slice]:
        """Rows of the stack that share a call: as few and as equal slices as `places` allows."""
        rows = len(self.numbers)
        count = -(-rows // self.places)
        bounds = [rows * i // count for i in range(count + 1)]
        return (slice(first, last) for first, last in pairwise(bounds))

    def lifted(self, method: str, rows: slice, params: Params, batch: Batch) -> Any:
        """A method of the module for several trials at once; `params` are those of `rows`, buffers change in place."""
        buffers = {name: _padded(value[rows]) for name, value in self.buffers.items()}
        result = self._vmapped[method](params, buffers, batch)
        if rows.stop - rows.start == 1:
            for name, value in buffers.items():
                self.buffers[name][rows] = value[:1]
        return result

    def step(self, batch: Batch, index: int) -> None:
        """One optimizer step of every trial on the same batch."""
        self._train(True)
        objectives, gradients = zip(*[self._gradients(rows, batch, index) for rows in self.slices()], strict=True)
        self.objective = self.objective + torch.cat(objectives) * len(batch[1])
        self.rows_seen += len(batch[1])
        for parameter, *parts in zip(self.params.values(), *gradients, strict=True):
            parameter.grad = _joined(parts)
        self._change_gradients()
        self.optimizer.step()
        self._apply_prox()
        self.schedule.step()

    def _gradients(
        self, rows: slice, batch: Batch, index: int
    ) -> tuple[Float[Tensor, " rows"], list[Float[Tensor, "rows ..."]]]:
        count = rows.stop - rows.start
        params = {name: _padded(value.detach()[rows]).requires_grad_() for name, value in self.params.items()}
        self.template.rewind_noise(self.age, index)
        objective = self.lifted("objective", rows, params, batch)
        # a sum, not a mean: each trial keeps its own gradient
        gradients = torch.autograd.grad(objective.sum(), list(params.values()))
        return objective.detach()[:count], [gradient[:count] for gradient in gradients]

    def _strengths(self) -> Params:
        """(K,) strengths in the parameters' type, as a trial alone uses them."""
        prefix, dtype = "strengths.", next(iter(self.params.values())).dtype
        named = ((name.removeprefix(prefix), value) for name, value in self.buffers.items() if name.startswith(prefix))
        return {key: value.to(dtype) for key, value in named}

    @torch.no_grad()
    def _change_gradients(self) -> None:
        if not self.template.acting("gradients"):
            return
        gradients = {name: value.grad for name, value in self.params.items() if value.grad is not None}
        changed = vmap(self.template.changed_gradients)(gradients, self._strengths())
        for name, value in self.params.items():
            value.grad = changed[name]

    @torch.no_grad()
    def _apply_prox(self) -> None:
        if not self.template.acting("prox"):
            return
        group = self.optimizer.param_groups[0]
        for name in self.template.decayed:
            step_size = self.optimizer.step_size(group, self.params[name])
            self.params[name].copy_(vmap(self.template.after_prox)(self.params[name], step_size, self._strengths()))

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Sums:
        """Sums over a batch's rows per trial, in eval mode: (K, ...)."""
        self._train(False)
        parts = []
        for rows in self.slices():
            params = {name: _padded(value[rows]) for name, value in self.params.items()}
            sums = self.lifted("evaluation", rows, params, batch)
            parts.append({name: value[: rows.stop - rows.start] for name, value in sums.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    # -- ends of epochs ----------------------------------------------------------------------------------------

    def end_epoch(self, train: Sums, validation: Sums, epochs: int) -> list[TrialEpoch]:
        """Grow one epoch older and say how each trial stands."""
        self.age += 1
        columns = losses_and_gaps(self.template.task, train, validation)
        columns["loss/objective"] = torch.as_tensor(self.objective / self.rows_seen)
        self.objective, self.rows_seen = 0.0, 0
        table = {name: column.tolist() for name, column in columns.items()}
        return [
            self._trial_epoch(row, {name: column[row] for name, column in table.items()}, epochs)
            for row in range(len(self.numbers))
        ]

    def _trial_epoch(self, row: int, metrics: dict[str, float], epochs: int) -> TrialEpoch:
        patient = self.patience[row] == math.inf
        if patient or metrics["loss/val"] < self.best[row].get("loss/val", math.inf):
            self.best[row], self.best_age[row] = metrics, self.age
            if not patient:
                self._keep_best(row)
        return TrialEpoch(self.numbers[row], self.age, metrics, self.best[row], self._end(row, metrics, epochs))

    def _end(self, row: int, metrics: dict[str, float], epochs: int) -> str | None:
        if not all(math.isfinite(metrics[name]) for name in ("loss/objective", "loss/train", "loss/val")):
            return DIVERGED
        if self.age >= epochs:
            return FINISHED
        return STOPPED_EARLY if self.age - self.best_age[row] >= self.patience[row] else None

    def _keep_best(self, row: int) -> None:
        state = {name: value.detach() for name, value in (self.params | self.buffers).items()}
        if not self.best_state:
            self.best_state = {name: value.clone() for name, value in state.items()}
        for name, value in state.items():
            self.best_state[name][row] = value[row]

    def state(self, number: int) -> Params:
        """State dict of the weights by which a trial is judged, for its `RegularizedModule` alone."""
        row = self.numbers.index(number)
        source = self.best_state if self.patience[row] < math.inf else self.params | self.buffers
        return {name: source[name][row].detach().clone().cpu() for name in self.template.state_dict()}

    def keep(self, numbers: set[int]) -> None:
        """Drop all other trials: memory and time fall with them."""
        kept = [row for row, number in enumerate(self.numbers) if number in numbers]
        if len(kept) == len(self.numbers):
            return
        rows = torch.tensor(kept, dtype=torch.int64)
        self.optimizer.keep(rows)
        on_device = rows.to(self.device)
        self.buffers = {name: value[on_device] for name, value in self.buffers.items()}
        self.best_state = {name: value[on_device] for name, value in self.best_state.items()}
        for column in ("numbers", "patience", "best", "best_age"):
            setattr(self, column, [getattr(self, column)[row] for row in kept])


def _joined(parts: Sequence[Float[Tensor, "_ *shape"]]) -> Float[Tensor, "K *shape"]:
    """Slices of a stack put together, in their memory layout."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts), out=empty_stack(sum(map(len, parts)), parts[0][0]))


def _padded(rows: Shaped[Tensor, "rows *shape"]) -> Shaped[Tensor, "padded *shape"]:
    """A lone trial twice: one trial takes other kernels than several, and its numbers would depend on its neighbours."""
    return empty_stack(2, rows[0]).copy_(rows) if len(rows) == 1 else rows
