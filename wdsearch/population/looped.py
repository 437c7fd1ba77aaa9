"""Trials trained one after another, each with torch's own optimizer, for networks that vmap does not support."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wdsearch.population.cohort import Cohort, Saved
from wdsearch.population.module_attributes import (
    changed_attribute,
    fingerprints,
    plain_attributes,
    restore_attributes,
    volatile_buffers,
)
from wdsearch.population.step_statistics import Watch
from wdsearch.tasks.metrics import Sums
from wdsearch.trial.batches import Batch
from wdsearch.trial.copying import copied_for_reading
from wdsearch.trial.diagnostics import Steps
from wdsearch.trial.module import VALIDATION, RegularizedModule
from wdsearch.trial.resume import Progress
from wdsearch.types import Params


class LoopedCohort(Cohort):
    """Trials of age 0, on `device`, that will train for `steps` steps, each as under plain Lightning."""

    kind = "looped"

    def __init__(self, trials: Mapping[int, RegularizedModule], steps: int, device: torch.device) -> None:
        self.modules = [module.to(device) for module in trials.values()]
        super().__init__(trials, self.modules[0].task, steps)
        for module in self.modules:
            module.begin()
        pairs = [module.optimizer_and_schedule(steps) for module in self.modules]
        self.optimizers = [optimizer for optimizer, _ in pairs]
        self.schedules = [schedule for _, schedule in pairs]
        self.best_states: list[Params] = [{} for _ in self.modules]
        self.watches = [Watch(module.decayed) for module in self.modules]
        self._hidden = [_hidden_state(module) for module in self.modules]

    def step(self, batch: Batch, index: int) -> None:
        objectives = []
        columns = (self.modules, self.optimizers, self.schedules, self.watches)
        for module, optimizer, schedule, watch in zip(*columns, strict=True):
            module.train()
            module.rewind_noise(self.age, index)
            optimizer.zero_grad()
            objective = module.objective(batch)
            objective.backward()
            params = {name: value.detach().unsqueeze(0) for name, value in module.named_parameters()}
            watch.before_step(params, [p.grad.unsqueeze(0) for p in module.parameters() if p.grad is not None])
            module.before_step(optimizer)
            optimizer.step()
            module.after_step(optimizer, schedule.last_epoch + 1)
            watch.after_step(params, module.recipe.factor(schedule.last_epoch, self.steps))
            schedule.step()
            objectives.append(objective.detach())
        rows = self.modules[0].rows(batch)
        self.objective = self.objective + torch.stack(objectives) * rows
        self.rows_seen += rows

    @torch.no_grad()
    def evaluate(self, batch: Batch, index: int = 0, phase: str = VALIDATION) -> Sums:
        sums = []
        for module in self.modules:
            module.rewind_noise(self.age, index, phase)
            with module.eval().evaluated_weights():
                sums.append(module.evaluation(batch))
        return {name: torch.stack([one[name] for one in sums]) for name in sums[0]}

    def _keep_best(self, row: int) -> None:
        self.best_states[row] = copy.deepcopy(self.modules[row].judged_state())

    def state(self, number: int) -> dict[str, Any]:
        row = self.numbers.index(number)
        source = self.best_states[row] if self.patience[row] < math.inf else self.modules[row].judged_state()
        return {name: _on_cpu(value) for name, value in source.items()}

    def module(self, number: int) -> RegularizedModule:
        alone = copied_for_reading(self.modules[self.numbers.index(number)]).cpu()
        alone.zero_grad()
        alone.progress = Progress()
        alone.load_state_dict(self.state(number))
        return alone

    def watched(self, number: int) -> Steps:
        return self.watches[self.numbers.index(number)].steps(0)

    def trends(self) -> dict[str, Tensor]:
        each = []
        for module, watch in zip(self.modules, self.watches, strict=True):
            with module.evaluated_weights():
                each.append(watch.trends({name: p.detach().unsqueeze(0) for name, p in module.named_parameters()}))
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}

    def _keep_rows(self, rows: list[int]) -> None:
        for column in ("modules", "optimizers", "schedules", "best_states", "watches", "_hidden"):
            setattr(self, column, [getattr(self, column)[row] for row in rows])

    def saved(self) -> Saved:
        return self._columns() | {
            "attributes": [plain_attributes(module) for module in self.modules],
            "volatile_buffers": [volatile_buffers(module) for module in self.modules],
            "states": [module.state_dict() for module in self.modules],
            "remembered": [module.progress.states for module in self.modules],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "best_states": self.best_states,
            "watches": [watch.saved() for watch in self.watches],
        }

    def resumable(self) -> bool:
        now = map(_hidden_state, self.modules)
        return all(changed_attribute(before, after) is None for before, after in zip(self._hidden, now, strict=True))

    def restore(self, saved: Saved) -> None:
        for row, column in enumerate(self._restore_columns(saved)):
            restore_attributes(self.modules[row], saved["attributes"][column])
            self.modules[row].load_state_dict(saved["states"][column])
            for name, value in saved["volatile_buffers"][column].items() if "volatile_buffers" in saved else ():
                self.modules[row].get_buffer(name).copy_(value)
            self.modules[row].begin(Progress(saved["remembered"][column] if "remembered" in saved else {}))
            self.optimizers[row].load_state_dict(saved["optimizers"][column])
            self.schedules[row].load_state_dict(saved["schedules"][column])
            self.best_states[row] = saved["best_states"][column]
            self.watches[row].restore(saved["watches"][column], [0], self.modules[row].device)


def _hidden_state(module: RegularizedModule) -> dict[str, bytes]:
    """Fingerprints of the attributes that a checkpoint cannot hold."""
    plain = plain_attributes(module)
    return {path: digest for path, digest in fingerprints(module).items() if path not in plain}


def _on_cpu(value: Any) -> Any:
    """Copy of an entry of a state dict; a network's extra state may be of any type."""
    return value.detach().clone().cpu() if isinstance(value, Tensor) else copy.deepcopy(value)
