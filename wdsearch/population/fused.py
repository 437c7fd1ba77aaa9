"""Trials stacked along an axis K and trained by one vmapped call, with the same numbers as each alone."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import vmap

from wdsearch.optimizers import OPTIMIZERS
from wdsearch.optimizers.stacks import empty_stack, stack_rows
from wdsearch.population.cohort import Cohort, Saved
from wdsearch.population.step_statistics import Watch
from wdsearch.tasks import Sums, widened
from wdsearch.trial.batches import Batch
from wdsearch.trial.copying import copied_for_reading
from wdsearch.trial.diagnostics import Steps
from wdsearch.trial.module import VALIDATION, RegularizedModule
from wdsearch.trial.recipe import NORMS
from wdsearch.types import Params, States


def stacked_state(modules: Sequence[nn.Module]) -> tuple[Params, Params]:
    """Parameters and buffers of modules with the same names and shapes, stacked; their classes may differ.

    >>> params, buffers = stacked_state([nn.BatchNorm1d(2), nn.BatchNorm1d(2)])
    >>> params["weight"].shape, buffers["running_mean"].shape
    (torch.Size([2, 2]), torch.Size([2, 2]))
    """
    params = [dict(module.named_parameters()) for module in modules]
    buffers = [dict(module.named_buffers()) for module in modules]
    return _stacked(params), _stacked(buffers)


def _stacked(columns: Sequence[Mapping[str, Tensor]]) -> Params:
    return {name: torch.stack([column[name].detach() for column in columns]) for name in columns[0]}


def lift(module: nn.Module, function: Callable[..., Any], in_dims: Any = (0, 0, None)) -> Callable[..., Any]:
    """A function of one module as a function of stacked parameters and buffers and of further arguments.

    Like `torch.func.functional_call`, which looks up the module's tensors at every call; here they are looked up once.
    """
    names = {id(value): name for name, value in chain(module.named_parameters(), module.named_buffers())}
    tables: list[dict[str, Any]] = [table for part in module.modules() for table in (part._parameters, part._buffers)]
    # a tied weight has one name and several slots
    slots = [(table, key, names[id(table[key])]) for table in tables for key in table if table[key] is not None]
    originals = [table[key] for table, key, _ in slots]

    def of_one(params: Params, buffers: Params, *args: Any) -> Any:
        state = params | buffers
        try:
            for table, key, name in slots:
                table[key] = state[name]
            return function(*args)
        finally:
            for (table, key, _), value in zip(slots, originals, strict=True):
                table[key] = value

    return vmap(of_one, in_dims=in_dims, randomness="same")


def _widen(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs of a norm layer in at least 32 bits; under vmap autocast does not widen them."""
    return tuple(map(widened, inputs))


class FusedCohort(Cohort):
    """Trials of age 0, on `device`, that will train for `steps` steps, stacked.

    `max_fused` limits the number of trials per call; a larger cohort is called in slices, with the same numbers.
    """

    kind = "fused"

    def __init__(
        self, trials: Mapping[int, RegularizedModule], steps: int, device: torch.device, max_fused: int = 32
    ) -> None:
        modules = [module.to(device) for module in trials.values()]
        if len({tuple(sorted(module.regularizers)) for module in modules}) > 1:
            raise ValueError("trials of one cohort have strengths of the same keys; admit those with others apart")
        super().__init__(trials, modules[0].task, steps)
        # itself, not a copy: hooks may refer to it
        self.max_fused, self.template, recipe = max(1, max_fused), modules[0], modules[0].recipe
        # never called: a network with tensors left from a vmapped call cannot be copied
        self._alone = copied_for_reading(modules[0]).cpu()
        for layer in self.template.modules():
            if isinstance(layer, NORMS):
                layer.register_forward_pre_hook(_widen)
        params, self.buffers = stacked_state(modules)
        trained = {name for name, value in self.template.named_parameters() if value.requires_grad}
        self.params = {name: params[name].detach().requires_grad_() for name in params if name in trained}
        self.buffers |= {name: params[name].detach() for name in params if name not in trained}  # frozen ones
        groups = [group for group in self._groups(modules) if group["params"]]
        rates = torch.stack([module.rates.as_dict()["lr"] for module in modules])
        self.optimizer = OPTIMIZERS[recipe.optimizer].stacked(groups, rates, **recipe.options)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: recipe.factor(step, steps))
        self.states = self._init_states()
        self.best_state: Params = {}
        self.watch = Watch(self.template.decayed)
        self._names = _names_of_state(self.template)
        self._vmapped = {
            "objective": lift(self.template, self.template.objective),
            "evaluation": lift(self.template, self.template.evaluation),
        }
        self._train(True)

    def _groups(self, modules: Sequence[RegularizedModule]) -> Iterator[dict[str, Any]]:
        """Parameter groups of the optimizer: one for each set of decay keys, and one without decay."""
        for keys, names in self.template.decay_groups():
            decay = torch.stack([module.decay(keys, module.strengths.as_dict()) for module in modules])
            yield {"params": [self.params[name] for name in names], "decay": decay if keys else None}
        decayed = set(self.template.decayed)
        yield {"params": [value for name, value in self.params.items() if name not in decayed]}

    @property
    def device(self) -> torch.device:
        """Device of the stacked parameters."""
        return next(iter(self.params.values())).device

    def _train(self, mode: bool) -> None:
        if self.template.training != mode:
            self.template.train(mode)

    def slices(self) -> Iterator[slice]:
        """Slices of the stack, one per call: as few and as equal in size as `max_fused` allows."""
        rows = len(self.numbers)
        count = -(-rows // self.max_fused)
        bounds = [rows * i // count for i in range(count + 1)]
        return (slice(first, last) for first, last in pairwise(bounds))

    def lifted(self, method: str, rows: slice, params: Params, batch: Batch) -> Any:
        """Call a method of the module for several trials at once; `params` are those of `rows`, buffers are updated in place."""
        buffers = {name: _padded(value[rows]) for name, value in self.buffers.items()}
        versions = {name: value._version for name, value in params.items()}
        result = self._vmapped[method](params, buffers, batch)
        if rows.stop - rows.start == 1:
            for name, value in buffers.items():
                self.buffers[name][rows] = value[:1]
            if method == "objective" or not self.template.following.averages:
                self._write_back(
                    {name: params[name] for name in params if params[name]._version != versions[name]}, rows
                )
        return result

    @torch.no_grad()
    def _write_back(self, params: Params, rows: slice) -> None:
        """Keep what a network changes in place in the padded weights of a single trial."""
        for name, value in params.items():
            self.params[name][rows] = value[:1]

    def step(self, batch: Batch, index: int) -> None:
        """One optimizer step of every trial on the same batch."""
        self._train(True)
        objectives, gradients = zip(*[self.gradients(rows, batch, index) for rows in self.slices()], strict=True)
        rows = self.template.rows(batch)
        self.objective = self.objective + torch.cat(objectives) * rows
        self.rows_seen += rows
        for parameter, *parts in zip(self.params.values(), *gradients, strict=True):
            parameter.grad = _joined([part for part in parts if part is not None])
        self.watch.before_step(self.params, [parameter.grad for parameter in self.params.values()])
        self._change_gradients()
        self.optimizer.step()
        self._apply_prox()
        self._after_step(self.schedule.last_epoch + 1)
        self.watch.after_step(self.params, float(self.schedule.get_last_lr()[0]))
        self.schedule.step()

    def gradients(
        self, rows: slice, batch: Batch, index: int
    ) -> tuple[Float[Tensor, " rows"], list[Float[Tensor, "rows ..."] | None]]:
        """Objective and gradient per trial of some rows of the stack; None where the objective does not depend on it."""
        count = rows.stop - rows.start
        params = {name: _padded(value.detach()[rows]).requires_grad_() for name, value in self.params.items()}
        self.template.rewind_noise(self.age, index)
        objective = self.lifted("objective", rows, params, batch)
        # a sum, not a mean: each trial keeps its own gradient
        gradients = torch.autograd.grad(objective.sum(), list(params.values()), allow_unused=True)
        cut: list[Tensor | None] = [None if gradient is None else gradient[:count] for gradient in gradients]
        return objective.detach()[:count], cut

    def _strengths(self) -> Params:
        """Strengths of shape (K,) in the parameters' dtype, as in a single trial."""
        prefix, dtype = "strengths.", next(iter(self.params.values())).dtype
        named = ((name.removeprefix(prefix), value) for name, value in self.buffers.items() if name.startswith(prefix))
        return {key: value.to(dtype) for key, value in named}

    @torch.no_grad()
    def _change_gradients(self) -> None:
        if not self.template.acting("gradients"):
            return
        gradients = {name: value.grad for name, value in self.params.items() if value.grad is not None}
        changed = vmap(self.template.changed_gradients)(gradients, self._strengths())
        for name, gradient in changed.items():
            self.params[name].grad = gradient

    @torch.no_grad()
    def _apply_prox(self) -> None:
        if not self.template.acting("prox"):
            return
        group = self.optimizer.param_groups[0]
        step_size_of = OPTIMIZERS[self.template.recipe.optimizer].step_size
        for name in self.template.decayed:
            weight = self.params[name]
            if weight.grad is None:
                continue
            step_size = step_size_of(self.optimizer.state[weight], self.optimizer.rate(group, weight), group)
            after_prox = vmap(partial(self.template.after_prox, name))
            weight.copy_(after_prox(weight, step_size, self._strengths()))

    @torch.no_grad()
    def _init_states(self) -> States:
        """Stacked states of the regularizers before the first step."""
        following = self.template.following
        return vmap(following.init_states)(self.params) if following.acts else {}

    @torch.no_grad()
    def _after_step(self, step: int) -> None:
        """Let regularizers act after the `step`-th step, counted from 1."""
        if not self.template.following.acts:
            return
        after_step = vmap(partial(self.template.following.after_step, step))
        changed, self.states = after_step(self.params, self.states, self._strengths())
        for name, value in changed.items():
            self.params[name].copy_(value)

    @torch.no_grad()
    def _evaluated(self) -> Params:
        """The weights by which trials are evaluated, stacked."""
        if not self.template.following.averages:
            return self.params
        return self.params | vmap(self.template.following.evaluated)(self.params, self.states)

    @torch.no_grad()
    def evaluate(self, batch: Batch, index: int = 0, phase: str = VALIDATION) -> Sums:
        """Sums over the rows of a phase's `index`-th batch per trial, in eval mode: (K, ...)."""
        self._train(False)
        parts, evaluated = [], self._evaluated()
        for rows in self.slices():
            params = {name: _padded(value[rows]) for name, value in evaluated.items()}
            self.template.rewind_noise(self.age, index, phase)
            sums = self.lifted("evaluation", rows, params, batch)
            parts.append({name: value[: rows.stop - rows.start] for name, value in sums.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _keep_best(self, row: int) -> None:
        state = {name: value.detach() for name, value in (self._evaluated() | self.buffers).items()}
        if not self.best_state:
            self.best_state = {name: value.clone() for name, value in state.items()}
        for name, value in state.items():
            self.best_state[name][row] = value[row]

    def state(self, number: int) -> Params:
        row = self.numbers.index(number)
        source = self.best_state if self.patience[row] < math.inf else self._evaluated() | self.buffers
        return {name: source[own][row].detach().clone().cpu() for name, own in self._names.items()}

    def module(self, number: int) -> RegularizedModule:
        alone = copied_for_reading(self._alone)
        alone.load_state_dict(self.state(number))
        return alone

    def watched(self, number: int) -> Steps:
        return self.watch.steps(self.numbers.index(number))

    def trends(self) -> dict[str, Tensor]:
        return self.watch.trends(self._evaluated())

    def _keep_rows(self, rows: list[int]) -> None:
        self.watch.keep(rows)
        indices = torch.tensor(rows, dtype=torch.int64)
        self.optimizer.keep(indices)
        on_device = indices.to(self.device)
        self.buffers = {name: value[on_device] for name, value in self.buffers.items()}
        self.states = _rows_of(self.states, on_device)
        self.best_state = {name: value[on_device] for name, value in self.best_state.items()}

    def saved(self) -> Saved:
        return self._columns() | {
            "params": {name: value.detach() for name, value in self.params.items()},
            "buffers": self.buffers,
            "moments": {name: dict(self.optimizer.state[value]) for name, value in self.params.items()},
            "schedule": self.schedule.state_dict(),
            "remembered": self.states,
            "best_state": self.best_state,
            "watch": self.watch.saved(),
        }

    def restore(self, saved: Saved) -> None:
        rows = torch.tensor(self._restore_columns(saved), dtype=torch.int64)
        for name, value in self.params.items():
            # moved to the device first: a copy to another device loses the padding of a stack
            moments = {key: moment.to(value.device) for key, moment in saved["moments"][name].items()}
            value.data = stack_rows(saved["params"][name].to(value.device), rows)
            self.optimizer.state[value] = {
                key: moment if key == "step" else stack_rows(moment, rows) for key, moment in moments.items()
            }
        self.buffers = {name: saved["buffers"][name][rows].to(value.device) for name, value in self.buffers.items()}
        self.states = _rows_of(saved.get("remembered", {}), rows, self.device)
        self.best_state = {name: value[rows].to(self.device) for name, value in saved["best_state"].items()}
        self.watch.restore(saved["watch"], rows.tolist(), self.device)
        self.schedule.load_state_dict(saved["schedule"])
        for group, factor in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = factor


def _names_of_state(module: RegularizedModule) -> dict[str, str]:
    """Names in the stacks by name in a state dict; they differ for tied weights, which are stacked once."""
    names = {id(value): name for name, value in chain(module.named_parameters(), module.named_buffers())}
    return {name: names[id(value)] for name, value in module.state_dict(keep_vars=True).items()}


def _rows_of(states: States, rows: Int[Tensor, " rows"], device: torch.device | None = None) -> States:
    """States of some trials' regularizers, on a device."""
    return {
        key: {name: stack_rows(value.to(device or value.device), rows) for name, value in state.items()}
        for key, state in states.items()
    }


def _joined(parts: Sequence[Float[Tensor, "_ *shape"]]) -> Float[Tensor, "K *shape"] | None:
    """Concatenated slices of a stack, in their memory layout; None for a parameter that the loss does not depend on."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts), out=empty_stack(sum(map(len, parts)), parts[0][0]))


def _padded(rows: Shaped[Tensor, "rows *shape"]) -> Shaped[Tensor, "padded *shape"]:
    """A single row duplicated: kernels for one row round differently, so that results would depend on the number of trials."""
    return empty_stack(2, rows[0]).copy_(rows) if len(rows) == 1 else rows
