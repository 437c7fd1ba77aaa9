"""Trials trained one after another, each with torch's own optimizer: for networks that vmap cannot lift."""

import copy
import math
from collections.abc import Mapping

import torch

from wdsearch.attributes import plain_attributes, restore_attributes
from wdsearch.batches import Batch
from wdsearch.cohort import Cohort, Saved
from wdsearch.module import RegularizedModule
from wdsearch.tasks import Sums
from wdsearch.types import Params


class LoopedCohort(Cohort):
    """Trials of age 0, on `device`, that will train for `steps` steps, each as by plain Lightning."""

    kind = "looped"

    def __init__(self, trials: Mapping[int, RegularizedModule], steps: int, device: torch.device) -> None:
        self.modules = [module.to(device) for module in trials.values()]
        super().__init__(trials, self.modules[0].task)
        made = [module.optimizer_and_schedule(steps) for module in self.modules]
        self.optimizers, self.schedules = [one for one, _ in made], [one for _, one in made]
        self.best_states: list[Params] = [{} for _ in self.modules]

    def step(self, batch: Batch, index: int) -> None:
        objectives = []
        for module, optimizer, schedule in zip(self.modules, self.optimizers, self.schedules, strict=True):
            module.train()
            module.rewind_noise(self.age, index)
            optimizer.zero_grad()
            objective = module.objective(batch)
            objective.backward()
            module.before_step(optimizer)
            optimizer.step()
            module.after_step(optimizer)
            schedule.step()
            objectives.append(objective.detach())
        rows = self.modules[0].rows(batch)
        self.objective = self.objective + torch.stack(objectives) * rows
        self.rows_seen += rows

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Sums:
        sums = [module.eval().evaluation(batch) for module in self.modules]
        return {name: torch.stack([one[name] for one in sums]) for name in sums[0]}

    def _keep_best(self, row: int) -> None:
        self.best_states[row] = copy.deepcopy(self.modules[row].state_dict())

    def state(self, number: int) -> Params:
        row = self.numbers.index(number)
        source = self.best_states[row] if self.patience[row] < math.inf else self.modules[row].state_dict()
        return {name: value.detach().clone().cpu() for name, value in source.items()}

    def _keep_rows(self, rows: list[int]) -> None:
        for column in ("modules", "optimizers", "schedules", "best_states"):
            setattr(self, column, [getattr(self, column)[row] for row in rows])

    def saved(self) -> Saved:
        return self._columns() | {
            "attributes": [plain_attributes(module) for module in self.modules],
            "states": [module.state_dict() for module in self.modules],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "best_states": self.best_states,
        }

    def restore(self, saved: Saved) -> None:
        for row, place in enumerate(self._restore_columns(saved)):
            restore_attributes(self.modules[row], saved["attributes"][place])
            self.modules[row].load_state_dict(saved["states"][place])
            self.optimizers[row].load_state_dict(saved["optimizers"][place])
            self.schedules[row].load_state_dict(saved["schedules"][place])
            self.best_states[row] = saved["best_states"][place]
