"""wdsearch under the clock: whole searches, where their time goes, and fused training steps."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from competitors import BATCH, Measured, Parts, Setting, fused_configurations

import wdsearch.datasets.mnist1d
from wdsearch.models import mlp
from wdsearch.population.population import Population
from wdsearch.search import prepare, session
from wdsearch.search import run as search
from wdsearch.search.loop import SearchLoop
from wdsearch.search.worker import Work
from wdsearch.study.build import build_data
from wdsearch.study.load import load_study
from wdsearch.tracking.mlflow_tracker import MlflowTracker
from wdsearch.trial.module import RegularizedModule

STEPS, REST, OVERHEAD = "training steps", "rest", "all but training steps"
SEARCH = "search: first to last epoch"
PHASES = ("start: to the first step", SEARCH, "end: report, delivery", "all")
LOOP = "Lightning's loop, batches"
CALLS: Mapping[str, Sequence[tuple[Any, str]]] = {
    "building data": [(prepare, "build_data")],
    "opening storage": [(session, "open_study")],
    LOOP: [(L.Trainer, "fit")],
    STEPS: [(Population, "training_step")],
    "evaluation": [(Population, "validation_step"), (Population, "on_validation_epoch_end")],
    "stacking trials": [(Population, "admit"), (Population, "on_fit_start")],
    "asking": [(Work, "ask")],
    "judging, telling": [(SearchLoop, "begin"), (SearchLoop, "end_epoch")],
    "spooling records": [(MlflowTracker, name) for name in ("start_study", "start_trial", "log", "end_trial", "flush")],
    "report, plots, model": [(session, "conclude")],
    "waiting for delivery": [(MlflowTracker, "finish")],
}
"""Calls by what they are for; the time of a call does not include that of the calls of other parts in it."""


class Clock:
    """Seconds spent in each part itself, and when each part was first entered and last left."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside as that of a part; whatever ran around it is halted meanwhile."""
        self.first.setdefault(name, self._turn())
        self._open.append(name)
        try:
            yield
        finally:
            self.last[name] = self._turn()
            self._open.pop()

    def _turn(self) -> float:
        now = time.monotonic()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
        return now

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted."""

        @wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*args, **options)

        return timed

    @contextmanager
    def watching(self, calls: Mapping[str, Sequence[tuple[Any, str]]]) -> Iterator[None]:
        """Count the time of these calls, and of everything else as the rest."""
        with ExitStack() as stack:
            for part, places in calls.items():
                for owner, name in places:
                    stack.enter_context(patch.object(owner, name, self.around(part, getattr(owner, name))))
            stack.enter_context(self.part(REST))
            yield


def study(setting: Setting, pruner: str) -> dict[str, Any]:
    """A study file's content for a setting, all else by default."""
    ranges = {key: {"low": low, "high": high, "log": log} for key, (low, high, log) in setting.space.items()}
    return {
        "study": f"{setting.data}-{pruner}",
        "data": {"name": setting.data, "split_seed": 0, "init_args": {"batch_size": BATCH}},
        "model": {"name": "mlp", "init_args": {"hidden": list(setting.widths[1:-1])}},
        "optimizer": {"name": "adamw", "schedule": "cosine" if setting.cosine else "constant"},
        "space": ranges,
        "budget": {"trials": setting.trials, "epochs": setting.epochs},
        "search": {"pruner": pruner},
        "trainer": {"accelerator": "cpu"},
    }


def save_parts(setting: Setting, path: Path) -> None:
    """The tensors that wdsearch trains and evaluates on, for all competitors."""
    data: Any = build_data(load_study(study(setting, "none")))
    subset = [tuple(batch) for batch in data.train_eval_dataloader()]
    assert len(subset) == 1, "the subset is one batch of evaluation"
    parts: Parts = {name: data.parts[name].tensors for name in ("train", "validation")} | {"train_eval": subset[0]}
    torch.save(parts, path)


def run_search(setting: Setting, pruner: str, home: Path) -> Measured:
    """One `wdsearch.run` from call to return; its phases in its parts sum to all of it, as do its calls."""
    wdsearch.datasets.mnist1d._generated.cache_clear()
    clock = Clock()
    with clock.watching(CALLS):
        result = search.run(study(setting, pruner), home=home, progress=False)
    began, ended = clock.first[REST], clock.last[REST]
    assert result.baseline is not None
    losses = [trial.result.metrics["val_loss"] for trial in result.trials if trial.result.epochs == setting.epochs]
    turns = (began, clock.first[STEPS], clock.last[LOOP], ended)
    phases = zip(PHASES, (*(after - before for before, after in pairwise(turns)), ended - began), strict=True)
    return Measured(
        trials=len(result.trials),
        work=sum(trial.result.epochs for trial in result.trials) + result.baseline.epochs,
        began=began,
        ended=ended,
        val_loss=sum(losses) / max(1, len(losses)),
        baseline_loss=result.baseline.metrics["val_loss"],
        parts={name: clock.seconds[name] for name in (*CALLS, REST)}
        | {OVERHEAD: ended - began - clock.seconds[STEPS]}
        | dict(phases),
    )


class _Epochs(L.Callback):
    """Times at which the first epoch, which does not count, and the last one ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_epoch_end(self, *_: Any) -> None:
        self.ends.append(time.monotonic())


def fused_steps(setting: Setting, trials: int, steps: int) -> Measured:
    """At least so many steps of one cohort under `L.Trainer`, in whole epochs, as a search runs them; no evaluation."""
    data: Any = build_data(load_study(study(setting, "none")))
    modules = {}
    for number, chosen in enumerate(fused_configurations(trials)):
        strengths = {key: value for key, value in chosen.items() if key != "lr"}
        network = mlp(data.inputs, data.outputs, setting.widths[1:-1])
        modules[number] = RegularizedModule(network, strengths, chosen["lr"])
    population, ticks = Population(data, setting.epochs, max_fused=trials), _Epochs()
    population.admit(modules)
    of_epoch = len(data.train_dataloader())
    epochs = -(-steps // of_epoch)
    trainer = L.Trainer(
        max_epochs=1 + epochs,
        accelerator="cpu",
        callbacks=[ticks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(population)
    sums = population.cohorts[0].evaluate(data.parts["validation"].tensors)
    loss = float((sums["loss"] / sums["size"]).mean())
    return Measured(trials, trials * epochs * of_epoch, ticks.ends[0], ticks.ends[-1], loss)
