"""Checks a study by building all that it names, without training: `wdsearch validate`."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from wdsearch.datasets.examine import AUGMENTED, examine
from wdsearch.search.ask import build_pruner
from wdsearch.search.prepare import quiet_libraries, user_modules
from wdsearch.strategies.pruners import rungs
from wdsearch.study.build import build_data, check_trainer
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.study.space import baseline
from wdsearch.tasks.task import Task
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.parameters import Parameter, dropout_layers_of, parameters_of


@dataclass(frozen=True)
class Preview:
    """A sound study and what was built of it.

    `about` is what the data say of themselves, `columns` what became of a table's columns, `rows` are those of each part,
    `parameters` and `decayed` counts of the baseline's network (None of a user's LightningModule, which decays as it likes),
    `table` its parameters with the strengths that act on them, `dropout_layers` its layers that drop, `rungs` the epochs after
    which trials are judged, `rate_sum` the sum of the schedule's factors over all `steps`, `training` where and how they train,
    `alone` why one after another, None if they are fused.
    """

    config: StudyConfig
    task: Task
    about: str
    columns: tuple[Any, ...]
    rows: dict[str, int]
    batches: int
    inputs: int | None
    outputs: int | None
    parameters: int
    decayed: int | None
    table: tuple[Parameter, ...]
    dropout_layers: tuple[Parameter, ...]
    steps: int
    rate_sum: float
    rungs: tuple[int, ...]
    training: str
    alone: str | None
    warnings: tuple[str, ...]

    def decay_at(self, timescale: float) -> float:
        """λ of a timescale at the study's own learning rate."""
        return 1.0 / (self.config.optimizer.lr * self.rate_sum * timescale)


def preview(source: str | Path | Mapping[str, Any] | StudyConfig, overrides: Sequence[str] = ()) -> Preview:
    """Check a study as `run` does before it trains, and its network on one batch.

    Raises StudyFileError, BuildError and DataError.
    """
    config = load_study(source, overrides)
    with quiet_libraries():
        check_trainer(config)
        factory = TrialFactory(config, build_data(config))
        config = factory.config
        judged = [*config.objective.goals, *config.objective.limits]
        notes = [] if factory.solo else examine(factory.data, factory.task.name, judged)
        notes += [AUGMENTED] if factory.augmented else []
        module = factory.checked_baseline()
        warnings = [f"data: {text}" for text in notes] + factory.notes
        if factory.solo:
            user_modules(factory).rehearse(module)
            module = factory.checked_baseline()
        alone = factory.why_alone(baseline(config).model)
        training = factory.training(factory.max_fused)
    batches = factory.batches
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    return Preview(
        config=config,
        task=factory.task,
        about=getattr(factory.data, "about", ""),
        columns=getattr(factory.data, "column_notes", ()),
        rows=_rows(factory.data),
        batches=batches,
        inputs=getattr(factory.data, "inputs", None),
        outputs=getattr(factory.data, "outputs", None),
        parameters=sum(sizes.values()),
        decayed=sum(sizes[name] for name in module.decayed) if isinstance(module, RegularizedModule) else None,
        table=parameters_of(module) if isinstance(module, RegularizedModule) else (),
        dropout_layers=_that_drop(module, factory) if isinstance(module, RegularizedModule) else (),
        steps=batches * config.budget.epochs,
        rate_sum=factory.rate_sum,
        rungs=tuple(rungs(build_pruner(config), config.budget.epochs, 0)),
        training=training,
        alone=alone,
        warnings=tuple(warnings),
    )


def _that_drop(module: RegularizedModule, factory: TrialFactory) -> tuple[Parameter, ...]:
    """Layers that drop, and those in which functions do at the searched rate."""
    functions = (Parameter(f"{layer}, by a function", (), None, ("dropout",)) for layer in factory.dropout_functions)
    return (*dropout_layers_of(module), *functions)


def _rows(data: L.LightningDataModule) -> dict[str, int]:
    """Rows of each part; of own data as far as they say."""
    if hasattr(data, "parts"):
        return {name: len(part) for name, part in data.parts.items()}
    loaders = {"train": data.train_dataloader(), "validation": data.val_dataloader()}
    rows = {name: getattr(loader, "dataset", None) for name, loader in loaders.items()}
    return {name: len(part) for name, part in rows.items() if isinstance(part, Sized)}
