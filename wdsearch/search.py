"""The search loop: ask, train, report, track, tell, until the budget is spent."""

import logging
import math
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import torch
from optuna.trial import Trial, TrialState

from wdsearch.assembly import TrialFactory, build_data, describe_data
from wdsearch.cohort import DIVERGED, TrialEpoch
from wdsearch.config import StudyConfig, load_study
from wdsearch.module import RegularizedModule
from wdsearch.noise import derive_seed
from wdsearch.objective import Result, flat, values, violations
from wdsearch.plots import plot_gap
from wdsearch.population import Population
from wdsearch.pruners import HalvingPruner, rungs
from wdsearch.results import BASELINE, CONFIG, GOALS, LINK, METRIC, RESULT, StudyResult, best_trial, counts, load_result
from wdsearch.samplers import ask, build_pruner
from wdsearch.space import Configuration, baseline, check_timescales, configuration, distributions
from wdsearch.storage import Home
from wdsearch.terminal import SearchProgress, Snapshot
from wdsearch.tracking import Delivery, Tracker

UNREGULARIZED = -1
PRUNED = "pruned"
VERSIONS = {f"version.{name}": version(name) for name in ("wdsearch", "optuna", "lightning", "torch", "mlflow")}


class TrialsFailedError(Exception):
    """A study that cannot go on: a whole batch of trials in a row could not be built."""


class SearchLoop(L.Callback):
    """Feeds a Population from an Optuna study, and tells it what came out, at the ends of epochs.

    The schedule belongs to the study, not to the machine: trials are asked in batches of `search.batch`, two batches at
    first and then one whenever at most half a batch is left in training. How many are fused in a call changes no result.
    """

    def __init__(
        self,
        config: StudyConfig,
        study: optuna.Study,
        factory: TrialFactory,
        tracker: Tracker,
        progress: SearchProgress,
        home: Home,
    ) -> None:
        self.config, self.study, self.factory = config, study, factory
        self.tracker, self.progress = tracker, progress
        self.goals = config.objective.goals
        self.distributions = distributions(config)
        self.trials: dict[int, Trial] = {}
        self.configurations: dict[int, Configuration] = {}
        self.ages: dict[int, int] = {}
        self.dataset = describe_data(config, factory.data)
        self.folder = home.folder(config.study)
        self.asked = len(study.get_trials(deepcopy=False))
        self.counts, self.best = counts(study), best_trial(study)
        self._last_error = ""

    def on_fit_start(self, trainer: L.Trainer, population: L.LightningModule) -> None:
        """Take up what an earlier run left unfinished, add the baseline, and fill the places."""
        assert isinstance(population, Population)
        first = self._unfinished()
        if BASELINE not in self.study.user_attrs:
            first[UNREGULARIZED] = baseline(self.config)
        self._admit(population, first | self._ask_batch(batches=2))
        self._show()

    def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
        """Report, judge, tell, and ask for new trials, in an order that does not depend on how trials were fused."""
        assert isinstance(population, Population)
        epochs = [population.trial_epochs[number] for number in sorted(population.trial_epochs)]
        for epoch in epochs:
            self.ages[epoch.number] = epoch.age
            self.tracker.log(_key(epoch.number), epoch.age, epoch.metrics)
        pruned = self._judge([epoch for epoch in epochs if epoch.number != UNREGULARIZED and not epoch.end])
        leaving = {epoch.number: epoch.end or PRUNED for epoch in epochs if epoch.end or epoch.number in pruned}
        for epoch in epochs:
            if epoch.number in leaving:
                self._end(epoch, leaving[epoch.number], population)
        population.prune(set(leaving))
        self._admit(population, self._ask_batch())
        self.tracker.flush()
        self._show()

    # -- asking ------------------------------------------------------------------------------------------------

    def _unfinished(self) -> dict[int, Configuration]:
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.number: self._take(Trial(self.study, trial._trial_id)) for trial in running}

    def _take(self, trial: Trial) -> Configuration:
        self.trials[trial.number] = trial
        return configuration(self.config, trial.params, self.factory.rate_sum)

    def _ask_batch(self, batches: int = 1) -> dict[int, Configuration]:
        """Ask for a batch if at most half of one is in training, within what the budget leaves."""
        if len(self.trials) > self.config.batch // 2:
            return {}
        left = self.config.budget.trials - self._spent() - len(self.trials)
        indices = range(self.asked, self.asked + min(left, batches * self.config.batch))
        self.asked = indices.stop
        seeds = [derive_seed(self.config.seed, "ask", index) for index in indices]
        asked = ask(self.study, self.config, self.distributions, seeds)
        return {trial.number: self._take(trial) for trial in asked}

    def _admit(self, population: Population, configurations: Mapping[int, Configuration]) -> None:
        modules: dict[str, dict[int, RegularizedModule]] = {}
        for number, settings in configurations.items():
            module = self._build(number, settings)
            if module is not None:
                self.configurations[number] = settings
                modules.setdefault(repr(sorted(settings.model.items())), {})[number] = module
                self.tracker.start_trial(_key(number), self.factory.params(settings), self._tags(number), self.dataset)
        for trials in modules.values():
            population.admit(trials)
        if configurations and not modules:
            raise TrialsFailedError(f"none of {len(configurations)} new trials could be built: {self._last_error}")

    def _build(self, number: int, settings: Configuration) -> RegularizedModule | None:
        try:
            return self.factory.module(settings)
        except Exception as error:
            if number == UNREGULARIZED:
                raise
            self._last_error = f"{type(error).__name__}: {error}"
            self.trials[number].set_user_attr("error", self._last_error)
            self.study.tell(self.trials.pop(number), state=TrialState.FAIL)
            self.counts["failed"] += 1
            return None

    def _tags(self, number: int) -> dict[str, str]:
        kind = "baseline" if number == UNREGULARIZED else "trial"
        tags = {"wdsearch.kind": kind, "wdsearch.study": self.config.study, "seed": str(self.config.seed)}
        return tags | VERSIONS | _commit_tag()

    # -- judging and telling -----------------------------------------------------------------------------------

    def _judge(self, epochs: Sequence[TrialEpoch]) -> set[int]:
        """Numbers to prune: all of a rung report before any is judged."""
        pruner, budget = self.study.pruner, self.config.budget.epochs
        reporting = [epoch for epoch in epochs if epoch.age in rungs(pruner, budget, epoch.number)]
        for epoch in reporting:
            self.trials[epoch.number].report(values(flat(epoch.result), self.goals)[0], step=epoch.age)
        if not isinstance(pruner, HalvingPruner):
            return {epoch.number for epoch in reporting if self.trials[epoch.number].should_prune()}
        trials = self.study.get_trials(deepcopy=False) if reporting else []
        numbers = (epoch.number for epoch in reporting)
        return {number for number in numbers if pruner.outside(trials[number], trials, self.study.direction)}

    def _end(self, epoch: TrialEpoch, end: str, population: Population) -> None:
        settings = self.configurations.pop(epoch.number)
        self.ages.pop(epoch.number)
        metrics = {name: value for name, value in flat(epoch.result).items() if math.isfinite(value)}
        result = Result(end, epoch.age, metrics, settings.lr, settings.strengths, settings.model)
        tags = {"wdsearch.end": end, "wdsearch.diverged": str(end == DIVERGED).lower()}
        state = "PRUNED" if end in (PRUNED, DIVERGED) else "COMPLETE"
        self.tracker.end_trial(_key(epoch.number), state, metrics | {"epochs": epoch.age}, tags, epoch.age)
        self.tracker.flush()  # before Optuna is told: a crash in between repeats the end, and loses nothing
        if epoch.number == UNREGULARIZED:
            self.study.set_user_attr(BASELINE, result.as_dict())
        else:
            self._tell(self.trials.pop(epoch.number), result, population)

    def _tell(self, trial: Trial, result: Result, population: Population) -> None:
        trial.set_user_attr(RESULT, result.as_dict())
        if result.end in (PRUNED, DIVERGED):
            self.study.tell(trial, state=TrialState.PRUNED)
            self.counts[result.end] += 1
            return
        for name, excess in violations(result.metrics, self.config.objective.limits).items():
            trial.set_constraint(name, excess)
        self.study.tell(trial, values(result.metrics, self.goals))
        self.counts["complete"] += 1
        self.best = best_trial(self.study)
        if self.best is not None and self.best.number == trial.number:
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save({"trial": trial.number, "state_dict": population.state(trial.number)}, self.folder / "best.pt")

    def _spent(self) -> int:
        return self.counts["complete"] + self.counts["pruned"] + self.counts["diverged"]

    def _show(self) -> None:
        budget, best = self.config.budget, self.best
        training = sum(age for number, age in self.ages.items() if number != UNREGULARIZED) / budget.epochs
        value = best.values[0] if best else None
        gap = best.user_attrs[RESULT]["metrics"]["gap"] if best else None
        work = min(1.0, (self._spent() + training) / budget.trials)
        self.progress.update(Snapshot(budget.trials, self.counts, work, self.goals[0], value, gap))


def _key(number: int) -> str:
    return "baseline" if number == UNREGULARIZED else f"trial-{number}"


def run(
    source: str | Path | Mapping[str, Any] | StudyConfig,
    overrides: Sequence[str] = (),
    *,
    home: str | Path | None = None,
    storage: str | None = None,
    progress: bool = True,
) -> StudyResult:
    """Search a study until its budget is spent, and return what it found.

    `source` is a study file, its content as a mapping (own objects in place of import paths), or a StudyConfig;
    `overrides` are `key.path=value` strings. State goes to `home` (default `$WDSEARCH_HOME` or `.wdsearch`), the Optuna
    study to `storage` (an SQLAlchemy URL), MLflow records to `$MLFLOW_TRACKING_URI` or a SQLite file in `home`.
    Running a study again continues it.

    Raises StudyFileError for a faulty study and TrialsFailedError if no trial can be built.
    """
    config, place = load_study(source, overrides), Home(home)
    with SearchProgress(progress) as bar, _quiet_libraries():
        bar.say("preparing data")
        _set_threads(config.trainer.threads)
        factory = TrialFactory(config, build_data(config))
        check_timescales(config, factory.rate_sum, factory.largest_factor)
        study = _open(config, place, storage, factory)
        tracker = Tracker(place.path, config.study)
        loop = SearchLoop(config, study, factory, tracker, bar, place)
        tracker.start_study(*_study_record(config), loop.dataset)
        try:
            if _unspent(config, study):
                _train(config, loop, factory)
            _conclude(load_result(study, place), tracker, config.budget.trials)
        finally:
            delivery = tracker.close(progress=bar.delivering)
        study.set_user_attr(LINK, delivery.link)
        if delivery.undelivered:
            warnings.warn(_left_behind(delivery), stacklevel=2)
        return load_result(study, place)


def _left_behind(delivery: Delivery) -> str:
    return (
        f"{delivery.undelivered} records have not reached MLflow ({delivery.error or 'it was too slow'}); they wait on "
        f"disk and go with the next run of this study; details: {delivery.log}"
    )


def _open(config: StudyConfig, home: Home, storage: str | None, factory: TrialFactory) -> optuna.Study:
    study = optuna.create_study(
        storage=home.open(storage),
        study_name=config.study,
        directions=config.objective.directions,
        pruner=build_pruner(config),
        load_if_exists=True,
    )
    for name, value in ((GOALS, config.objective.goals), (METRIC, factory.task.metric.name), (CONFIG, config.dump())):
        study.set_user_attr(name, value)
    return study


def _unspent(config: StudyConfig, study: optuna.Study) -> bool:
    spent = counts(study)
    done = spent["complete"] + spent["pruned"] + spent["diverged"]
    return done < config.budget.trials or spent["running"] > 0 or BASELINE not in study.user_attrs


def _train(config: StudyConfig, loop: SearchLoop, factory: TrialFactory) -> None:
    places = config.trainer.population
    population = Population(
        factory.data, config.budget.epochs, 2 * config.batch + 1 if places == "auto" else int(places)
    )
    L.Trainer(
        max_epochs=-1,
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        precision=config.trainer.precision,
        callbacks=[loop],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(population)


def _study_record(config: StudyConfig) -> tuple[dict[str, Any], dict[str, str]]:
    tags = {"seed": str(config.seed), "budget.trials": str(config.budget.trials)}
    return {"epochs": config.budget.epochs}, tags | VERSIONS | _commit_tag()


@cache
def _commit_tag() -> dict[str, str]:
    """The commit of the folder where the study runs, with `+` if it has changes; empty outside a repository."""
    call = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.commit": found}


def _conclude(result: StudyResult, tracker: Tracker, step: int) -> None:
    """The best trial and the picture on the parent run."""
    found: dict[str, float] = {}
    if result.trials and result.trials[0].result.strengths:
        picture = result.folder / "gap.png"
        plot_gap(result, picture)
        tracker.log_artifact(picture)
    if result.best is not None:
        found = dict(zip(result.goals, result.best.values, strict=True)) | result.best.result.metrics
    number = str(result.best.number) if result.best else "none"
    tracker.end_study(found, {"best.trial": number}, step)


def _set_threads(threads: int | str) -> None:
    if threads != "auto":
        torch.set_num_threads(int(threads))


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Optuna's and Lightning's notes are for those who call them directly."""
    verbosity, logger = optuna.logging.get_verbosity(), logging.getLogger("lightning.pytorch")
    level = logger.level
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*|optuna\..*")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
        logger.setLevel(level)
