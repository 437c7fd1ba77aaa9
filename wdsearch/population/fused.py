"""Trials stacked along an axis K and trained by one vmapped call, with the same numbers as each alone."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap

from wdsearch.optimizers import OPTIMIZERS
from wdsearch.optimizers.stacks import stack_rows
from wdsearch.population._stacking import joined, lift, names_of_state, padded, rows_of, stacked_state
from wdsearch.population.cohort import Cohort, Saved
from wdsearch.population.step_statistics import Watch
from wdsearch.tasks.metrics import Sums
from wdsearch.tasks.task import widened
from wdsearch.trial.batches import Batch
from wdsearch.trial.copying import copied_for_reading
from wdsearch.trial.diagnostics import Steps
from wdsearch.trial.module import VALIDATION, RegularizedModule
from wdsearch.trial.weights import NORMS
from wdsearch.types import Params, States


def _widen(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs of a norm layer in at least 32 bits; under vmap autocast does not widen them."""
    return tuple(map(widened, inputs))


class FusedCohort(Cohort):
    """Trials of age 0, on `device`, that will train for `steps` steps, stacked.

    The modules belong to the cohort from then on. `max_fused` limits the number of trials per call; a larger cohort is called
    in slices, with the same numbers.
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
        self.begin()
        self.best_state: Params = {}
        self.watch = Watch(self.template.decayed)
        self._names = names_of_state(self.template)
        self._hooks = {
            name: list((value._backward_hooks or {}).values()) for name, value in self.template.named_parameters()
        }
        self._vmapped = {
            "objective": lift(self.template, self.template.objective),
            "evaluation": lift(self.template, self.template.evaluation),
        }
        self.template.train()  # in any case: a network with a `train` of its own may freeze a part

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
        buffers = {name: padded(value[rows]) for name, value in self.buffers.items()}
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
        objectives, gradients = zip(*[self.gradients(rows, batch, index) for rows in self.slices()], strict=True)
        rows = self.template.rows(batch)
        self.objective = self.objective + torch.cat(objectives) * rows
        self.rows_seen += rows
        for parameter, *parts in zip(self.params.values(), *gradients, strict=True):
            parameter.grad = joined([part for part in parts if part is not None])
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
        self._train(True)
        count = rows.stop - rows.start
        params = {name: padded(value.detach()[rows]).requires_grad_() for name, value in self.params.items()}
        self.template.rewind_noise(self.age, index)
        objective = self.lifted("objective", rows, params, batch)
        # a sum, not a mean: each trial keeps its own gradient
        gradients = torch.autograd.grad(objective.sum(), list(params.values()), allow_unused=True)
        cut = (None if gradient is None else gradient[:count] for gradient in gradients)
        return objective.detach()[:count], [
            self._hooked(name, gradient) for name, gradient in zip(params, cut, strict=True)
        ]

    def _hooked(self, name: str, gradient: Tensor | None) -> Tensor | None:
        """Stacked gradients as the hooks of a parameter change them."""
        for hook in self._hooks[name]:
            if gradient is not None:
                changed = vmap(hook)(gradient)
                gradient = gradient if changed is None else changed
        return gradient

    def _strengths(self) -> Params:
        """Strengths of shape (K,) in the parameters' dtype, as in a single trial."""
        prefix, dtype = "strengths.", next(iter(self.params.values())).dtype.to_real()
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
    def begin(self) -> None:
        """Initialise the states of the regularizers from the present weights."""
        following = self.template.following
        self.states: States = vmap(following.init_states)(self.params) if following.acts else {}

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
            params = {name: padded(value[rows]) for name, value in evaluated.items()}
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
        self.states = rows_of(self.states, on_device)
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
        self.states = rows_of(saved.get("remembered", {}), rows, self.device)
        self.best_state = {name: value[rows].to(self.device) for name, value in saved["best_state"].items()}
        self.watch.restore(saved["watch"], rows.tolist(), self.device)
        self.schedule.load_state_dict(saved["schedule"])
        for group, factor in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = factor
