"""A study from its file to what it found: `run` searches until the budget is spent."""

import gc
import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from wdsearch.assembly import build_data, check_trainer
from wdsearch.config import StudyConfig, load_study
from wdsearch.description import study_description
from wdsearch.examine import AUGMENTED, examine
from wdsearch.factory import TrialFactory
from wdsearch.leases import Leases
from wdsearch.loop import SearchLoop, StoppedError
from wdsearch.memory import Memory, available, footprint, is_out_of_memory, shown
from wdsearch.plots import plot_gap
from wdsearch.population import Population
from wdsearch.provenance import provenance
from wdsearch.results import LINK, MEMORY, TRAINING, StudyResult, load_result, spent
from wdsearch.samplers import build_pruner
from wdsearch.solo import Soloists
from wdsearch.space import baseline
from wdsearch.spool import now_ms
from wdsearch.storage import Home, clear_storage_errors, open_study
from wdsearch.terminal import SearchProgress
from wdsearch.tracking import Delivery, Tracker
from wdsearch.view import saved_views
from wdsearch.work import Work


class InterruptedStudyError(Exception):
    """A study that was stopped by a signal; `signal` is its number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


def run(
    source: str | Path | Mapping[str, Any] | StudyConfig,
    overrides: Sequence[str] = (),
    *,
    home: str | Path | None = None,
    storage: str | None = None,
    tracker: Tracker | None = None,
    progress: bool = True,
) -> StudyResult:
    """Search a study until its budget is spent, and return what it found.

    `source` is a study file, its content as a mapping (own objects in place of import paths), or a StudyConfig;
    `overrides` are `key.path=value` strings. State goes to `home` (default `$WDSEARCH_HOME` or `.wdsearch`), the Optuna
    study to `storage` (an SQLAlchemy URL), records to `tracker`: by default MLflow at `$MLFLOW_TRACKING_URI`, or in a
    SQLite file in `home`.
    Running a study again continues it; several processes may run the same study and share its budget.

    Raises StudyFileError for a faulty study, BuildError and DataError for what it names, StudyChangedError if it is not
    the one that was begun under its name, TrialsFailedError if no trial can be built, StorageError if its storage or
    disk cannot be written, and InterruptedStudyError after Ctrl-C or SIGTERM.
    """
    config, place = load_study(source, overrides), Home(home)
    with SearchProgress(progress) as bar, _quiet_libraries(), clear_storage_errors(place, storage):
        factory = _prepare(config, bar)
        digest = factory.dataset["digest"]
        study, engine = open_study(config, place, storage, build_pruner(config), factory.metric, digest)
        leases = Leases(engine, study._study_id, place.folder(config.study) / "workers")
        tracker = tracker or Tracker(place.path, config.study)
        loop = SearchLoop(Work(config, study, leases, factory.rate_sum), factory, tracker, bar, place)
        try:
            with _stopping_by_signal(loop):
                _search(loop, tracker)
            _conclude(load_result(study, place), tracker, config.budget.trials)
        finally:
            delivery = tracker.close(progress=bar.delivering)
            if delivery.note:
                bar.note(f"[yellow]warning[/yellow] {delivery.note}")
        study.set_user_attr(LINK, delivery.link)
        if delivery.undelivered:
            warnings.warn(_left_behind(delivery, config.study), stacklevel=2)
        return load_result(study, place)


def _prepare(config: StudyConfig, bar: SearchProgress) -> TrialFactory:
    """The data, looked at, and what builds trials on it; what is noticed about either is said."""
    bar.say("preparing data")
    check_trainer(config)
    if config.trainer.threads != "auto":
        torch.set_num_threads(int(config.trainer.threads))
    factory = TrialFactory(config, build_data(config))
    if factory.augmented:
        bar.note(f"[yellow]warning[/yellow] data: {AUGMENTED}")
    for text in [] if factory.solo else examine(factory.data, factory.task.name):
        bar.note(f"[yellow]warning[/yellow] data: {text}")
    factory.checked_baseline()
    return factory


def _search(loop: SearchLoop, tracker: Tracker) -> None:
    """Train until the study is complete; then, or when stopped or failing, let go of what is held."""
    config = loop.config
    tags = {"seed": str(config.seed), "budget.trials": str(config.budget.trials)}
    views = saved_views(config, loop.factory.metric, now_ms())
    tracker.start_study({"epochs": config.budget.epochs}, tags | provenance(), loop.dataset, views)
    places = _places(loop)
    try:
        loop.work.resume()
        while not loop.work.complete():
            if loop.work.gather():
                places = _train(loop, places)
            else:
                loop.progress.say("waiting for other workers' trials")
                time.sleep(1.0)
                loop.check_stopping()
        loop.work.leases.finish()
    except BaseException:
        loop.work.leases.release()
        raise


def _train(loop: SearchLoop, places: int) -> int:
    """Train what was gathered, `places` trials in a call; how many it was in the end, for memory may not suffice.

    What a population is cut off at is taken up as after a crash: how many share a call changes no number.
    """
    if loop.factory.solo:
        _train_alone(loop)
        return places
    trainer = loop.config.trainer
    try:
        L.Trainer(
            max_epochs=-1,
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            precision=trainer.precision,
            callbacks=[loop],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        ).fit(Population(loop.factory.data, loop.config.budget.epochs, places, loop.config.seed))
        loop.study.set_user_attr(MEMORY, loop.memory.as_dict())
        return places
    except Exception as error:
        if places == 1 or not is_out_of_memory(error):
            raise
    fewer = max(1, places // 2)
    loop.progress.note(f"out of memory with {places} trials in a call: going on with {fewer} (trainer.population)")
    loop.study.set_user_attr(TRAINING, loop.factory.training(fewer))
    gc.collect()  # Trainer and population refer to each other, and would keep their memory
    loop.work = loop.work.again()
    return fewer


def _train_alone(loop: SearchLoop) -> None:
    """Train what was gathered of a user's LightningModules, each by a Trainer of its own."""
    config, goals = loop.config, loop.config.objective
    trainer = config.trainer.model_dump(include={"accelerator", "devices", "precision"}) | config.trainer.options
    if config.trainer.devices > 1:  # a launcher that starts this program again would start the search again
        trainer = {"strategy": "ddp_spawn"} | trainer
    needed = {*goals.goals, *goals.limits}
    Soloists(loop.factory.data, config.budget.epochs, trainer, config.seed, needed, set(goals.maximize)).fit(loop)


def _places(loop: SearchLoop) -> int:
    """How many trials share a call: as the study says, or all that train; fewer, and a line, where memory is short."""
    config, factory = loop.config, loop.factory
    wanted = factory.places
    loop.study.set_user_attr(TRAINING, factory.training(wanted))
    if factory.solo:
        return 1
    trials = config.most_training
    module = factory.module(baseline(config))
    batch = next(iter(factory.data.train_dataloader()))
    found = footprint(module, batch, stops_early="early_stopping" in config.space)
    free, need = available(loop.device), found.total(trials, wanted)
    places = found.places(trials, wanted, free)
    if places < wanted:
        text = f"{trials} trials in training, {wanted} in a call, need about {shown(need)}; {shown(free)} are free"
        loop.progress.note(f"{text}: {places} in a call instead")
        loop.study.set_user_attr(TRAINING, factory.training(places))
    loop.memory = Memory(found.total(trials, places), loop.device)
    return places


def _conclude(result: StudyResult, tracker: Tracker, step: int) -> None:
    """The best trial and the picture on the parent run."""
    found: dict[str, float] = {}
    if any(trial.result.strengths and "gap" in trial.result.metrics for trial in result.trials):
        picture = result.folder / "gap.png"
        plot_gap(result, picture)
        tracker.log_artifact(picture)
    if result.best is not None:
        found = dict(zip(result.goals, result.best.values, strict=True)) | result.best.result.metrics
    number = str(result.best.number) if result.best else "none"
    memory = {f"memory.{name}": shown(count) for name, count in result.memory.items()}
    tags = {"best.trial": number, "training": result.training, "mlflow.note.content": study_description(result)}
    tracker.end_study(found, tags | memory, step)


def _left_behind(delivery: Delivery, study: str) -> str:
    return (
        f"{delivery.undelivered} records have not reached MLflow ({delivery.error or 'it was too slow'}); they wait on "
        f"disk; deliver them with: wdsearch sync {study}; details: {delivery.log}"
    )


@contextmanager
def _stopping_by_signal(loop: SearchLoop) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the search at the next batch; a second one ends it as Python does."""
    received: list[int] = []

    def stop(number: int, _: Any) -> None:
        received.append(number)
        loop.stopping = True
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except (StoppedError, SIGTERMException):  # Lightning may notice it before the loop does
        done, budget = spent(loop.counts), loop.config.budget.trials
        text = f"stopped: {done} of {budget} trials are done, and nothing is lost; continue with the same command"
        raise InterruptedStudyError(text, received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
