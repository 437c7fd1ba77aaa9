"""A study from its file to what it found: `run` searches until the budget is spent."""

import gc
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import optuna
import torch

from wdsearch.datasets.examine import AUGMENTED, examine
from wdsearch.messages import shown_bytes
from wdsearch.population.memory import Memory, available, footprint, is_out_of_memory
from wdsearch.population.population import Population
from wdsearch.population.user_module import Soloists
from wdsearch.search.ask import build_pruner
from wdsearch.search.conclude import conclude
from wdsearch.search.interruption import stopping_by_signal
from wdsearch.search.loop import SearchLoop
from wdsearch.search.progress import SearchProgress
from wdsearch.search.worker import Work
from wdsearch.storage.attributes import CONCLUDED, FAMILY, FIRED, INVARIANT, LINK, MEMORY, TOKEN, TRAINING, VERSIONS
from wdsearch.storage.database import is_away
from wdsearch.storage.home import Home, clear_storage_errors
from wdsearch.storage.leases import GRACE_S, Leases
from wdsearch.storage.provenance import provenance
from wdsearch.storage.results import StudyResult, load_result, spent
from wdsearch.storage.studies import open_study
from wdsearch.study.build import build_data, check_trainer, population_trainer
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.study.space import baseline
from wdsearch.tracking import chosen_tracker, open_tracker
from wdsearch.tracking.tracker import Delivery, Tracker

STORAGE_PATIENCE_S = 600.0
"""How long a worker waits for a storage's server that is being started again."""
T = TypeVar("T")


def run(
    source: str | Path | Mapping[str, Any] | StudyConfig,
    overrides: Sequence[str] = (),
    *,
    home: str | Path | None = None,
    storage: str | None = None,
    tracker: Tracker | None = None,
    progress: bool | Literal["lines"] = True,
) -> StudyResult:
    """Search a study until its budget is spent, and return what it found.

    `source` is a study file, its content as a mapping (own objects in place of import paths), or a StudyConfig;
    `overrides` are `key.path=value` strings. State goes to `home` (default `$WDSEARCH_HOME` or `.wdsearch`), the Optuna
    study to `storage` (an SQLAlchemy URL), records to `tracker`: by default as the
    study's `tracking` says.
    Running a study again continues it; several processes may run the same study and share its budget.

    Raises StudyFileError for a faulty study, BuildError and DataError for what it names, StudyChangedError if it is not
    the one that was begun under its name, TrialsFailedError if no trial can be built, StorageError if its storage or
    disk cannot be written, and InterruptedStudyError after Ctrl-C or SIGTERM.
    """
    config, place = load_study(source, overrides), Home(home)
    with SearchProgress(progress) as bar, quiet_libraries(), clear_storage_errors(place, storage):
        loop = _opened(config, place, storage, tracker, bar)
        if _ends_elsewhere(loop):
            return load_result(loop.study, place)
        with _letting_go(loop):
            with _delivering(loop), stopping_by_signal(loop.stop, lambda: _stopped(loop)), _letting_go(loop):
                _search(loop)  # if that fails, others can take over before this one has delivered
                concluded = _patiently(loop, partial(_conclude, loop))
            if concluded:
                _patiently(loop, partial(loop.study.set_user_attr, CONCLUDED, config.budget.trials))
            _patiently(loop, lambda: loop.work.leases.finish())
        return load_result(loop.study, place)


def _ends_elsewhere(loop: SearchLoop) -> bool:
    """Whether this worker comes when another one makes the study's end: it waits for that, and opens nothing again."""
    with stopping_by_signal(loop.stop, lambda: _stopped(loop)):
        while loop.work.leases.is_concluding():
            loop.progress.say("waiting for another worker, which makes the study's end")
            loop.check_stopping()
            time.sleep(1.0)
    ended = bool(loop.study.user_attrs.get(CONCLUDED) == loop.config.budget.trials)
    if ended:
        loop.tracker.stop_writing()
        loop.work.leases.take_over((), born=0)  # of who died when all was done
    return ended


def begin(
    config: StudyConfig,
    home: Home,
    storage: str | None = None,
    progress: bool = True,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Check a study as `run` does, and enter it in its storage and its records, for workers to come. Raises what `run` raises.

    `attributes` are kept with the study if it is new.
    """
    with SearchProgress(progress) as bar, quiet_libraries(), clear_storage_errors(home, storage):
        loop = _opened(config, home, storage, None, bar, attributes)
        with _delivering(loop):
            _start_study(loop)


def _opened(
    config: StudyConfig,
    home: Home,
    storage: str | None,
    tracker: Tracker | None,
    bar: SearchProgress,
    attributes: Mapping[str, Any] | None = None,
) -> SearchLoop:
    """The loop of a study that is begun or taken up again; nothing is trained yet."""
    chosen_tracker(config.tracking)
    factory = prepare(config, bar)
    digest = factory.dataset["digest"]
    study, engine = open_study(config, home, storage, build_pruner(config), factory.metric, digest, attributes)
    leases = Leases(engine, study._study_id, home.folder(config.study) / "workers")
    tracker = tracker or open_tracker(config.tracking, home, config.study, storage)
    study.set_user_attr(VERSIONS, provenance(tracker.libraries))
    return SearchLoop(Work(config, study, leases, factory.rate_sum), factory, tracker, bar, home)


@contextmanager
def _letting_go(loop: SearchLoop) -> Iterator[None]:
    """When stopped or failing, let others take what is held."""
    try:
        yield
    except BaseException:
        loop.work.leases.let_go()
        raise


@contextmanager
def _delivering(loop: SearchLoop) -> Iterator[None]:
    """However it ends, what was written down is delivered; if it ends well, the study knows where to."""
    try:
        yield
    finally:
        delivery = loop.tracker.finish(progress=loop.progress.delivering)
        if delivery.note:
            loop.progress.note(f"[yellow]warning[/yellow] {delivery.note}")
    loop.study.set_user_attr(LINK, delivery.link)
    if delivery.undelivered:
        warnings.warn(_left_behind(delivery, loop.config.study), stacklevel=4)


def prepare(config: StudyConfig, bar: SearchProgress) -> TrialFactory:
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


def _start_study(loop: SearchLoop) -> None:
    """Open the study's record."""
    config = loop.config
    tags = {"seed": str(config.seed), "budget.trials": str(config.budget.trials)}
    attributes = loop.study.user_attrs
    tags |= {f"wdsearch.{name}": attributes[name] for name in (FAMILY, FIRED) if name in attributes}
    params = {"epochs": config.budget.epochs}
    tags |= provenance(loop.tracker.libraries)
    loop.tracker.start_study(params, tags, loop.dataset, attributes[TOKEN], config, loop.factory.metric)


def _search(loop: SearchLoop) -> None:
    """Train until the study is complete."""
    _patiently(loop, partial(_start_study, loop))
    places = _patiently(loop, partial(_places, loop))
    _patiently(loop, partial(_join, loop))
    while not _patiently(loop, loop.work.complete):
        places = _patiently(loop, partial(_train_more, loop, places))


def _join(loop: SearchLoop) -> None:
    """Take part, unless waiting for the storage has brought that about."""
    if not loop.work.leases.worker:
        loop.work.resume()


def _train_more(loop: SearchLoop, places: int) -> int:
    """Train what there is for this worker, or wait a moment for others; how many places that took."""
    if loop.work.gather():
        return _train(loop, places)
    loop.progress.say("waiting for other workers' trials")
    time.sleep(1.0)
    loop.check_stopping()
    return places


def _patiently(loop: SearchLoop, act: Callable[[], T]) -> T:
    """Do it; where the storage's server goes away meanwhile, wait, and take up what was in training as after a crash."""
    while True:
        try:
            return act()
        except Exception as error:
            if not is_away(error):
                raise
            loop.tracker.discard()
            _await_storage(loop)


def _await_storage(loop: SearchLoop) -> None:
    loop.progress.note("the storage does not answer: waiting for it; nothing is lost")
    end = time.monotonic() + STORAGE_PATIENCE_S
    while True:
        loop.check_stopping()
        try:
            loop.work = loop.work.again()
            return
        except Exception as error:
            if not is_away(error) or time.monotonic() > end:
                raise
        time.sleep(1.0)


def _conclude(loop: SearchLoop) -> bool:
    """The end of a study, which one of its workers makes; of several machines it waits for the others to leave first."""
    leases, tracker, budget = loop.work.leases, loop.tracker, loop.config.budget
    if not leases.claim_conclusion():
        return False
    loop.progress.say("drawing and writing the report")
    result = load_result(loop.study, loop.home)
    conclude(result, loop.factory, tracker, loop.progress.note, budget.trials, lambda share: loop.check_stopping())
    if tracker.node:
        tracker.flush()
        loop.progress.say("waiting for the other workers to end")
        leases.await_others(1.5 * GRACE_S, loop.check_stopping)
        results = {f"trial-{trial.number}": trial.result for trial in result.trials}
        tracker.sweep(results | ({"baseline": result.baseline} if result.baseline else {}))
    return True


def _train(loop: SearchLoop, places: int) -> int:
    """Train what was gathered, `places` trials in a call; how many it was in the end, for memory may not suffice.

    What a population is cut off at is taken up as after a crash: how many share a call changes no number.
    """
    if loop.factory.solo:
        _train_alone(loop)
        return places
    try:
        population = Population(loop.factory.data, loop.config.budget.epochs, places, loop.config.seed)
        population_trainer(loop.config.trainer, loop).fit(population)
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
    loop.study.set_user_attr(INVARIANT, factory.scale_invariant_share())
    if factory.solo:
        return 1
    trials = config.most_training
    module = factory.module(baseline(config))
    batch = next(iter(factory.data.train_dataloader()))
    found = footprint(module, batch, stops_early="early_stopping" in config.space)
    free, need = available(loop.device), found.total(trials, wanted)
    places = found.places(trials, wanted, free)
    if places < wanted:
        text = f"{trials} trials in training, {wanted} in a call, need about {shown_bytes(need)}; {shown_bytes(free)} are free"
        loop.progress.note(f"{text}: {places} in a call instead")
        loop.study.set_user_attr(TRAINING, factory.training(places))
    loop.memory = Memory(found.total(trials, places), loop.device)
    return places


def _left_behind(delivery: Delivery, study: str) -> str:
    return (
        f"{delivery.undelivered} records have not reached MLflow ({delivery.error or 'it was too slow'}); they wait on "
        f"disk; deliver them with: wdsearch sync {study}; details: {delivery.log}"
    )


def _stopped(loop: SearchLoop) -> str:
    done, budget = spent(loop.counts), loop.config.budget.trials
    return f"stopped: {done} of {budget} trials are done, and nothing is lost; continue with the same command"


@contextmanager
def quiet_libraries() -> Iterator[None]:
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
