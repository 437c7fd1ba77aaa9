"""K trials under one `L.Trainer`, in cohorts of different ages and networks; trials join and leave during training."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import lightning as L
import torch

from wdsearch.population.cohort import Cohort, Saved, TrialEpoch
from wdsearch.population.fused import FusedCohort
from wdsearch.population.looped import LoopedCohort
from wdsearch.tasks.metrics import Sums, total
from wdsearch.trial.batches import Batch, changed
from wdsearch.trial.loaders import batches_of, epoch_length, train_eval_loader
from wdsearch.trial.module import TRAINING_ROWS, VALIDATION, RegularizedModule
from wdsearch.trial.result import Diagnosis


class CohortBatches:
    """Batches by age of the cohort, in the order of that cohort's epoch; one item holds `STEPS` batches.

    Lightning has an overhead of 1 to 2 ms per item of a loader, as much as one step of a small population.
    """

    STEPS = 8

    def __init__(self, data: L.LightningDataModule, cohorts: Callable[[], list[Cohort]], seed: int = 0) -> None:
        self.loader, self.count, self.cohorts, self.seed = data.train_dataloader(), epoch_length(data), cohorts, seed

    def __len__(self) -> int:
        return -(-self.count // self.STEPS)

    def __iter__(self) -> Iterator[dict[int, tuple[Batch, ...]]]:
        ages = sorted({cohort.age for cohort in self.cohorts()})
        streams = [batches_of(self.loader, self.seed, age, self.count) for age in ages]
        for _ in range(len(self)):
            yield {age: tuple(islice(stream, self.STEPS)) for age, stream in zip(ages, streams, strict=True)}


class Population(L.LightningModule):
    """Trains each admitted trial for `epochs` epochs: `L.Trainer(max_epochs=-1).fit(population)`.

    Fused trials share calls of at most `max_fused` trials; others are trained one after another. `seed` determines the order
    of rows of loaders that have no order of their own.

    Implements `Training`. After each epoch a callback's `on_train_epoch_end` may call `prune` and `admit`; then trials that
    have ended leave, and training stops when none is left.

    >>> from wdsearch import ArrayDataModule, Arrays
    >>> class Random(ArrayDataModule):
    ...     def arrays(self):
    ...         return Arrays(torch.randn(100, 3).numpy(), (torch.arange(100) % 2).numpy())
    >>> population = Population(Random(batch_size=20), epochs=2)
    >>> decays = {0: 0.01, 1: 0.1}
    >>> modules = {n: RegularizedModule(torch.nn.Linear(3, 2), {"weight_decay": decay}) for n, decay in decays.items()}
    >>> population.admit(modules)
    """

    def __init__(self, datamodule: L.LightningDataModule, epochs: int, max_fused: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.datamodule, self.epochs, self.max_fused = datamodule, epochs, max_fused
        self.cohorts: list[Cohort] = []
        self._waiting: list[tuple[Mapping[int, RegularizedModule], Saved | None, bool]] = []
        self.trial_epochs: dict[int, TrialEpoch] = {}
        self._validation_batch: Batch | None = None
        datamodule.prepare_data()
        datamodule.setup("fit")
        self.batches = CohortBatches(datamodule, lambda: self.cohorts, seed)

    @property
    def live(self) -> list[int]:
        """Numbers of the trials in training."""
        return [number for cohort in self.cohorts for number in cohort.numbers]

    def admit(self, trials: Mapping[int, RegularizedModule], saved: Saved | None = None, fuse: bool = True) -> None:
        """Let trials of one network join as a cohort at the next epoch, from the start or from a saved state."""
        self._waiting.append((trials, saved, fuse))
        if self._trainer is not None:
            self._stack_waiting()

    def _stack_waiting(self) -> None:
        convert, steps = self.trainer.precision_plugin.convert_module, self.batches.count * self.epochs
        for trials, saved, fuse in self._waiting:
            for module in trials.values():
                convert(module)
            size = (steps, self.device)
            cohort: Cohort = FusedCohort(trials, *size, self.max_fused) if fuse else LoopedCohort(trials, *size)
            if saved is not None:
                cohort.restore(saved)
            self.cohorts.append(cohort)
        self._waiting.clear()

    def on_fit_start(self) -> None:
        """Stack the admitted trials, now that device and precision are known."""
        self._stack_waiting()

    def state(self, number: int) -> dict[str, Any]:
        """State dict of a live trial's judged weights."""
        return next(cohort.state(number) for cohort in self.cohorts if number in cohort.numbers)

    def diagnosis(self, number: int) -> Diagnosis:
        """Effect of λ on a live trial, in the state by which it is judged, on the first validation batch."""
        cohort = next(cohort for cohort in self.cohorts if number in cohort.numbers)
        return cohort.diagnosis(number, self._validation_batch, self.epochs)

    def prune(self, numbers: set[int]) -> None:
        """Remove trials immediately."""
        for cohort in self.cohorts:
            cohort.keep(set(cohort.numbers) - numbers)
        self.cohorts = [cohort for cohort in self.cohorts if cohort.numbers]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Empty list for Lightning: each cohort has its own optimizer and schedule."""
        return []

    def train_dataloader(self) -> Any:
        return self.batches

    def val_dataloader(self) -> list[Any]:
        return [self.datamodule.val_dataloader(), train_eval_loader(self.datamodule)]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Batch in 64 bits, if all is trained in them: Lightning converts collections of tensors, not objects that hold some."""
        if self.trainer.precision != "64-true":
            return batch
        return changed(batch, lambda x: x.double() if x.is_floating_point() else x)

    def training_step(self, batch: dict[int, tuple[Batch, ...]], batch_idx: int) -> None:
        for cohort in self.cohorts:
            for index, one in enumerate(batch[cohort.age], start=batch_idx * self.batches.STEPS):
                cohort.step(one, index)

    def on_validation_epoch_start(self) -> None:
        self._sums: list[list[list[Sums]]] = [[[], []] for _ in self.cohorts]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if self._validation_batch is None and not dataloader_idx:
            self._validation_batch = changed(batch, lambda tensor: tensor.detach().cpu())
        for cohort, sums in zip(self.cohorts, self._sums, strict=True):
            phase = TRAINING_ROWS if dataloader_idx else VALIDATION
            sums[dataloader_idx].append(cohort.evaluate(batch, batch_idx, phase))

    def on_validation_epoch_end(self) -> None:
        self.trial_epochs = {
            epoch.number: epoch
            for cohort, (validation, train) in zip(self.cohorts, self._sums, strict=True)
            for epoch in cohort.end_epoch(total(train), total(validation), self.epochs)
        }

    def on_train_epoch_end(self) -> None:
        self.prune({epoch.number for epoch in self.trial_epochs.values() if epoch.end})
        self.trainer.should_stop = not self.cohorts
