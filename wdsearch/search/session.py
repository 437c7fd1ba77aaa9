"""One process at work on one study: opens it, joins its workers, trains, concludes it, and delivers its records."""

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

from wdsearch.messages import shown_bytes
from wdsearch.population.memory import Memory, available, device_of, footprint, is_out_of_memory
from wdsearch.population.population import Population
from wdsearch.search.ask import build_pruner
from wdsearch.search.conclude import conclude
from wdsearch.search.interruption import StopRequest, stopping_by_signal
from wdsearch.search.loop import SearchLoop
from wdsearch.search.prepare import prepare, user_modules
from wdsearch.search.progress import SearchProgress
from wdsearch.search.replicate import configuration_of
from wdsearch.search.training_facts import training_facts
from wdsearch.search.worker import Work
from wdsearch.storage.attributes import (
    CONCLUDED,
    FAMILY,
    FIRED,
    INERT,
    INVARIANT,
    LINK,
    MEMORY,
    RATE_SUM,
    TARGET,
    TOKEN,
    TRAINING,
    VERSIONS,
)
from wdsearch.storage.database import is_away
from wdsearch.storage.home import Home
from wdsearch.storage.leases import GRACE_S, Leases
from wdsearch.storage.provenance import provenance
from wdsearch.storage.recommendation import store_recommendation
from wdsearch.storage.results import counts, load_result, spent
from wdsearch.storage.studies import open_study
from wdsearch.strategies.optuna_private import study_id
from wdsearch.study.build import population_trainer
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import StudyConfig
from wdsearch.study.space import baseline
from wdsearch.tracking import open_tracker
from wdsearch.tracking.tracker import Delivery, Tracker

STORAGE_PATIENCE_S = 600.0
"""Longest wait of a worker for a storage's server that is being started again."""
T = TypeVar("T")


class Session:
    """One process at work on one study, from its opening to the delivery of its records.

    `work` holds the trials of this process. Whenever the storage's server goes away or memory does not suffice, it is
    replaced by the same worker's work begun anew, as after a crash. `max_fused` trials share a call: how many they are
    changes no number.
    """

    def __init__(
        self, work: Work, factory: TrialFactory, tracker: Tracker, progress: SearchProgress, home: Home
    ) -> None:
        self.work, self.factory, self.home = work, factory, home
        self.tracker, self.progress = tracker, progress
        self.config, self.study = work.config, work.study
        self.stop = StopRequest()
        self.memory = Memory(0, device_of(self.config.trainer.accelerator))
        self.max_fused = 1

    @classmethod
    def open(
        cls,
        config: StudyConfig,
        home: Home,
        storage: str | None,
        progress: SearchProgress,
        tracker: Tracker | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> "Session":
        """Begin a study or take it up again; nothing is trained yet. `attributes` are stored with the study if it is new."""
        factory = prepare(config, progress)
        config = factory.config
        digest = factory.dataset["digest"]
        study, engine = open_study(config, home, storage, build_pruner(config), factory.metric, digest, attributes)
        leases = Leases(engine, study_id(study), home.folder(config.study) / "workers")
        tracker = tracker or open_tracker(config.tracking, home, config.study, storage)
        study.set_user_attr(VERSIONS, provenance(tracker.libraries))
        return cls(Work(config, study, leases, factory.rate_sum), factory, tracker, progress, home)

    # -- its life ----------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Open the study's record, for workers to come."""
        with self._delivering():
            self._start_study()

    def complete(self) -> None:
        """Search until the budget is spent, and make the study's end unless another worker does.

        Raises InterruptedStudyError after Ctrl-C or SIGTERM.
        """
        with self._letting_go():
            with self._delivering(), self._interruptible(), self._letting_go():
                self.search()  # if that fails, others can take over before this one has delivered
                concludes = self._patiently(self._conclude)
            if concludes:
                self._patiently(partial(self.study.set_user_attr, CONCLUDED, self.config.budget.trials))
            self._patiently(lambda: self.work.leases.finish())  # `work` may have been replaced

    def ends_elsewhere(self) -> bool:
        """Wait for a worker that makes the study's end, if one does; True if nothing is left to this one."""
        with self._interruptible():
            while self.work.leases.is_concluding():
                self._wait("waiting for another worker, which makes the study's end")
        ended = bool(self.study.user_attrs.get(CONCLUDED) == self.config.budget.trials)
        if ended:
            self.tracker.stop_writing()
            self.work.leases.take_over((), born=0)  # of who died when all was done
        return ended

    def search(self) -> None:
        """Train until the study is complete."""
        self._patiently(self._start_study)
        self._patiently(self._choose_max_fused)
        self._patiently(self._join)
        while not self._patiently(lambda: self.work.complete()):  # `work` may have been replaced
            self._patiently(self._train_more)

    def _start_study(self) -> None:
        """Open the study's record, or take it up again."""
        config, attributes = self.config, self.study.user_attrs
        tags = {"seed": str(config.seed), "budget.trials": str(config.budget.trials)}
        tags |= {f"wdsearch.{name}": attributes[name] for name in (FAMILY, FIRED) if name in attributes}
        params = {"epochs": config.budget.epochs}
        tags |= provenance(self.tracker.libraries)
        self.tracker.start_study(params, tags, self.factory.dataset, attributes[TOKEN], config, self.factory.metric)

    def _join(self) -> None:
        """Take part, unless waiting for the storage has brought that about."""
        if not self.work.leases.worker:
            self.work.resume()

    # -- interruptions -----------------------------------------------------------------------------------------

    def _interruptible(self) -> AbstractContextManager[None]:
        return stopping_by_signal(self.stop.make, self._stopped_text)

    def _stopped_text(self) -> str:
        done, budget = spent(counts(self.work.seen)), self.config.budget.trials
        return f"stopped: {done} of {budget} trials are done, and nothing is lost; continue with the same command"

    def _wait(self, reason: str) -> None:
        """Wait a second, unless this process is to end."""
        self.progress.say(reason)
        time.sleep(1.0)
        self.stop.check()

    @contextmanager
    def _letting_go(self) -> Iterator[None]:
        """Let others take this worker's trials when it is stopped or fails."""
        try:
            yield
        except BaseException:
            self.work.leases.let_go()
            raise

    def _patiently(self, act: Callable[[], T]) -> T:
        """Result of `act`; where the storage goes away meanwhile, wait, take up what was in training, and call it again."""
        while True:
            try:
                return act()
            except Exception as error:
                if not is_away(error):
                    raise
                self.tracker.discard()
                self._await_storage()

    def _await_storage(self) -> None:
        self.progress.note("the storage does not answer: waiting for it; nothing is lost")
        end = time.monotonic() + STORAGE_PATIENCE_S
        while True:
            self.stop.check()
            try:
                self.work = self.work.again()
                return
            except Exception as error:
                if not is_away(error) or time.monotonic() > end:
                    raise
            time.sleep(1.0)

    # -- training ----------------------------------------------------------------------------------------------

    def _train_more(self) -> None:
        """Train what there is for this worker, or wait a moment for others."""
        if not self.work.gather():
            self._wait("waiting for other workers' trials")
        elif self.factory.solo:
            self._train_user_modules()
        else:
            self._train()

    def _train(self) -> None:
        """Train what was gathered; out of memory, fewer trials share a call from now on."""
        try:
            self._train_population()
            return
        except Exception as error:
            if self.max_fused == 1 or not is_out_of_memory(error):
                raise
        fewer = max(1, self.max_fused // 2)
        self.progress.note(
            f"out of memory with {self.max_fused} trials in a call: going on with {fewer} (trainer.population)"
        )
        self.max_fused = fewer
        self.study.set_user_attr(TRAINING, self.factory.training(fewer))
        gc.collect()  # Trainer and population refer to each other, and would keep their memory
        self.work = self.work.again()

    def _train_population(self) -> None:
        config = self.config
        population = Population(self.factory.data, config.budget.epochs, self.max_fused, config.seed)
        population_trainer(config.trainer, self._loop()).fit(population)
        self.study.set_user_attr(MEMORY, self.memory.as_dict())

    def _train_user_modules(self) -> None:
        """Train what was gathered of user-defined LightningModules, each by a Trainer of its own."""
        user_modules(self.factory).fit(self._loop())

    def _loop(self) -> SearchLoop:
        folder = self.home.folder(self.config.study)
        return SearchLoop(self.work, self.factory, self.tracker, self.progress, self.stop, folder)

    def _choose_max_fused(self) -> None:
        """Let as many trials share a call as the study says, or all that train; fewer, with a note, where memory is short."""
        factory, limit = self.factory, self.factory.max_fused
        self.study.set_user_attr(TRAINING, factory.training(limit))
        self.study.set_user_attr(INVARIANT, factory.scale_invariant_share())
        self.study.set_user_attr(INERT, factory.inert)
        if scale := factory.task.scale:
            mean = getattr(factory.data, "target_mean", ())
            self.study.set_user_attr(TARGET, {"mean": list(mean), "scale": list(scale)})
        if factory.solo:
            return
        self.study.set_user_attr(RATE_SUM, factory.rate_sum)
        trials, device = self.config.most_training, self.memory.device
        module = factory.module(baseline(self.config))
        batch = next(iter(factory.data.train_dataloader()))
        needed = footprint(module, batch, stops_early="early_stopping" in self.config.space)
        free = available(device)
        self.max_fused = needed.max_fused(trials, limit, free)
        if self.max_fused < limit:
            text = (
                f"{trials} trials in training, {limit} in a call, need about {shown_bytes(needed.total(trials, limit))}"
            )
            self.progress.note(f"{text}; {shown_bytes(free)} are free: {self.max_fused} in a call instead")
            self.study.set_user_attr(TRAINING, factory.training(self.max_fused))
        self.memory = Memory(needed.total(trials, self.max_fused), device)

    # -- the study's end ---------------------------------------------------------------------------------------

    def _conclude(self) -> bool:
        """Make the study's end, which one of its workers does; of several machines it waits for the others to leave first."""
        leases, tracker, budget = self.work.leases, self.tracker, self.config.budget
        if not leases.claim_conclusion():
            return False
        self.progress.say("drawing and writing the report")
        result = load_result(self.study, self.home)
        if result.best is not None:
            store_recommendation(result, training_facts(self.factory, configuration_of(result.best.result)))
        conclude(result, self.factory, tracker, self.progress, budget.trials, lambda share: self.stop.check())
        if tracker.node:
            tracker.flush()
            self.progress.say("waiting for the other workers to end")
            leases.await_others(1.5 * GRACE_S, self.stop.check)
            results = {f"trial-{trial.number}": trial.result for trial in result.trials}
            tracker.sweep(results | ({"baseline": result.baseline} if result.baseline else {}))
        return True

    @contextmanager
    def _delivering(self) -> Iterator[None]:
        """Deliver the written records, however it ends; if it ends well, store the link to them in the study."""
        try:
            yield
        finally:
            delivery = self.tracker.finish(progress=self.progress.delivering)
            if delivery.note:
                self.progress.warn(delivery.note)
        self.study.set_user_attr(LINK, delivery.link)
        if delivery.undelivered:
            warnings.warn(_undelivered_text(delivery, self.config.study), stacklevel=5)  # the caller of `run`


def _undelivered_text(delivery: Delivery, study: str) -> str:
    return (
        f"{delivery.undelivered} records have not reached MLflow ({delivery.error or 'it was too slow'}); they wait on "
        f"disk; deliver them with: wdsearch sync {study}; details: {delivery.log}"
    )
