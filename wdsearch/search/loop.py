"""The search loop: ask, train, report, judge, track, tell, at the ends of a population's epochs.

Its order makes it repeatable. At each tick of the worker's clock all trials report before any is judged; what was judged
is written down and settled; only then Optuna is told, and new trials are asked for. A process killed anywhere leaves
either an unsettled tick, which the next one trains and judges again from the same state, or a settled one, of which it
does what was not done yet.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from rich.markup import escape

from wdsearch.errors import BuildError, StoppedError
from wdsearch.population.checkpoint import write_checkpoint
from wdsearch.population.cohort import TrialEpoch
from wdsearch.population.memory import Memory, device_of
from wdsearch.population.population import Training
from wdsearch.search.best_model import keep_weights, kept_weights
from wdsearch.search.progress import SearchProgress, Snapshot
from wdsearch.search.worker import UNREGULARIZED, Work
from wdsearch.storage.attributes import BASELINE, RESULT, TOKEN
from wdsearch.storage.home import Home
from wdsearch.storage.optuna_tables import report, set_attribute
from wdsearch.storage.provenance import provenance
from wdsearch.storage.results import best_trial, counts, is_better, spent
from wdsearch.strategies.pruners import HalvingPruner, rungs
from wdsearch.study.factory import TrialFactory
from wdsearch.study.space import Configuration
from wdsearch.tracking.description import trial_description
from wdsearch.tracking.spool import locked
from wdsearch.tracking.tracker import DESCRIPTION, Tracker, ending
from wdsearch.trial.result import PRUNED, Result, flat, values, violations

CHECKPOINT_S = 60.0


class TrialsFailedError(Exception):
    """A study that cannot go on: a whole batch of trials in a row could not be built."""


class SearchLoop(L.Callback):
    """Feeds a Population with a worker's trials, and tells Optuna what came out. How many are fused changes no result."""

    def __init__(
        self, work: Work, factory: TrialFactory, tracker: Tracker, progress: SearchProgress, home: Home
    ) -> None:
        self.work, self.factory, self.tracker, self.progress = work, factory, tracker, progress
        self.config, self.study, self.goals = work.config, work.study, work.config.objective.goals
        self.dataset = factory.dataset
        self.home, self.folder = home, home.folder(self.config.study)
        self.device = device_of(self.config.trainer.accelerator)
        self.memory = Memory(0, self.device)
        self.stopping = False
        self._next_checkpoint = time.monotonic() + CHECKPOINT_S
        self._last_error = ""
        self._said: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read how the study stands, other workers' trials included."""
        shown = self.work.look()
        self.counts, self.best = counts(shown), best_trial(shown)

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, population: Any) -> None:
        self.refresh()
        self._admit(population)
        self._show()

    def on_train_batch_end(self, *_: Any) -> None:
        self.check_stopping()

    def stop(self) -> None:
        """Ask to end at the next batch."""
        self.stopping = True

    def check_stopping(self) -> None:
        """Raise StoppedError if somebody asked for it."""
        if self.stopping:
            raise StoppedError

    def on_train_epoch_end(self, trainer: Any, population: Any) -> None:
        """Report, judge, settle, tell, and ask for new trials, in an order that does not depend on how trials were fused."""
        self.work.tick += 1
        epochs = [population.trial_epochs[number] for number in sorted(population.trial_epochs)]
        for epoch in epochs:
            self.work.running[epoch.number].age = epoch.age
            self.tracker.log(_key(epoch.number), epoch.age, epoch.metrics | epoch.trends)
        news = [epoch for epoch in epochs if epoch.end or epoch.age > self.work.running[epoch.number].settled]
        pruned, judged = self._judge([epoch for epoch in news if epoch.number != UNREGULARIZED and not epoch.end])
        leaving = [epoch for epoch in news if epoch.end or epoch.number in pruned]
        if leaving or judged:
            self._conclude({epoch.number: self._result(epoch, population) for epoch in leaving}, population)
        population.prune({epoch.number for epoch in leaving})
        self.work.leases.tick = max(self.work.leases.tick, self.work.tick)
        if leaving:
            self.work.take_over()
            self.work.ask()
        self._admit(population)
        self._save_now_and_then(population)
        self.tracker.flush()
        self._show()

    def _admit(self, population: Training) -> None:
        """Let those begin whose time it is, and those of a checkpoint go on."""
        for saved in self.work.saved:
            held = {
                number: self.work.running[number].settings for number in saved["numbers"] if number in self.work.running
            }
            modules = {number: self.factory.trial(settings) for number, settings in held.items()}
            population.admit(modules, saved, fuse=all(self._fuse(settings) for settings in held.values()))
            for number, settings in held.items():
                self._start_tracking(number, settings)
        self.work.saved = []
        numbers = self.work.waiting.pop(self.work.tick, [])
        networks: dict[str, dict[int, L.LightningModule]] = {}
        for number in numbers:
            settings = self.work.running[number].settings
            module = self._build(number, settings)
            if module is not None:
                networks.setdefault(repr(sorted(settings.model.items())), {})[number] = module
                self._start_tracking(number, settings)
        for trials in networks.values():
            population.admit(trials, fuse=self._fuse(self.work.running[min(trials)].settings))
        if numbers and not networks:
            raise TrialsFailedError(f"none of {len(numbers)} new trials could be built: {self._last_error}")

    def _fuse(self, settings: Configuration) -> bool:
        """Whether trials of this network are fused; if not, one line says why."""
        reason = self.factory.why_alone(settings.model)
        if reason and reason not in self._said:
            self._said.add(reason)
            self.progress.note(f"trials are trained one after another, for {reason}")
        return reason is None

    def _build(self, number: int, settings: Configuration) -> L.LightningModule | None:
        try:
            module = self.factory.trial(settings)
            self.factory.why_alone(settings.model)  # the network is tried
            return module
        except BuildError as error:
            trial = self.work.running.pop(number).trial
            if trial is None:
                raise
            self._last_error = str(error)
            self.work.fail(trial, self._last_error)
            return None

    def _save_now_and_then(self, population: Training) -> None:
        """A checkpoint once a minute; where writing takes longer, seldom enough to cost a twentieth of the time."""
        began = time.monotonic()
        if population.cohorts and began >= self._next_checkpoint:
            try:
                write_checkpoint(self.work.checkpoint, self.work.tick, population.cohorts, self.device)
            except OSError as error:
                self.progress.note(f"no checkpoint could be written, training goes on: {error}")
            self._next_checkpoint = began + max(CHECKPOINT_S, 20 * (time.monotonic() - began))

    def _start_tracking(self, number: int, settings: Configuration) -> None:
        kind = "baseline" if number == UNREGULARIZED else "trial"
        tags = {"wdsearch.kind": kind, "wdsearch.study": self.config.study, "seed": str(self.config.seed)}
        tags |= {"wdsearch.gap": "augmented"} if self.factory.augmented else {}
        params, prefix = self.factory.params(settings), "" if self.factory.solo else "model."
        arguments = {prefix + name: value for name, value in settings.model.items()}
        tags[DESCRIPTION] = trial_description(params, arguments)
        inherited = self.work.running[number].inherited
        tags |= provenance(self.tracker.libraries)
        self.tracker.start_trial(_key(number), params, tags, self.dataset, inherited)

    # -- judging and telling -----------------------------------------------------------------------------------

    def _judge(self, epochs: Sequence[TrialEpoch]) -> tuple[set[int], bool]:
        """Numbers to prune, and whether any was judged: all of a rung report before the first of it is."""
        pruner, budget = self.study.pruner, self.config.budget.epochs
        reporting = [epoch for epoch in epochs if epoch.age in rungs(pruner, budget, epoch.number)]
        if not reporting:
            return set(), False
        values_of = {epoch.number: (epoch.age, values(flat(epoch.result), self.goals)[0]) for epoch in reporting}
        report(self.study, {self._trial(number): value for number, value in values_of.items()})
        shown = self.work.look()
        if isinstance(pruner, HalvingPruner):
            return {n for n in values_of if pruner.outside(shown[n], shown.get_trials(), shown.direction)}, True
        return {n for n in values_of if pruner.prune(shown, shown[n])}, True

    def _trial(self, number: int) -> int:
        """Optuna's id of a trial in training."""
        trial = self.work.running[number].trial
        assert trial is not None
        return trial

    def _result(self, epoch: TrialEpoch, population: Training) -> Result:
        settings = self.work.running[epoch.number].settings
        metrics = {name: value for name, value in flat(epoch.result).items() if math.isfinite(value)}
        own = (settings.lr, settings.strengths, settings.model)
        return Result(epoch.end or PRUNED, epoch.age, metrics, *own, self._diagnostics(epoch.number, population))

    def _diagnostics(self, number: int, population: Training) -> dict[str, Any]:
        """What λ did to a trial; a network that cannot be looked at is said once, and loses nothing else."""
        try:
            return population.diagnosis(number).as_dict()
        except Exception as error:  # whatever a user's network raises
            text = f"no diagnostics, for the network cannot be looked at: {type(error).__name__}: {error}"
            if text not in self._said:
                self._said.add(text)
                self.progress.note(f"[yellow]warning[/yellow] {escape(text)}")
            return {}

    def _conclude(self, results: Mapping[int, Result], population: Training) -> None:
        """Write down what became of the leaving trials, settle it, and tell Optuna."""
        for number, result in results.items():
            self.tracker.end_trial(_key(number), *ending(result), result.epochs, result.diagnostics)
        self.tracker.flush()  # before Optuna is told: a crash in between repeats the end, and loses nothing
        self._keep_best_weights(results, population)
        trials = {number: self.work.running.pop(number).trial for number in results}
        told = {trial: results[number] for number, trial in trials.items() if trial is not None}
        if UNREGULARIZED in results:
            self.study.set_user_attr(BASELINE, results[UNREGULARIZED].as_dict())
        if told:
            set_attribute(self.study, RESULT, {trial: result.as_dict() for trial, result in told.items()})
        self.work.leases.settle(self.work.tick)
        self.work.tell(told)
        self.refresh()

    def _keep_best_weights(self, results: Mapping[int, Result], population: Training) -> None:
        """Before anything is settled, so that no crash can lose them; workers beside this one do the same."""
        for number, result in results.items():
            met = all(excess <= 0 for excess in violations(result.metrics, self.config.objective.limits).values())
            if number != UNREGULARIZED and result.is_complete and met:
                found = values(result.metrics, self.goals)
                if self.best is None or is_better(found, self.best.values, self.study.directions):
                    with locked(self.folder / "best.pt.lock"):
                        self._replace_weights(number, found, population)

    def _replace_weights(self, number: int, found: list[float], population: Training) -> None:
        path, token = self.folder / "best.pt", self.study.user_attrs[TOKEN]
        kept = kept_weights(path)
        if kept.get("study") != token or is_better(found, kept["values"], self.study.directions):
            keep_weights(path, token, number, found, population.state(number))

    def _show(self) -> None:
        budget, best = self.config.budget, self.best
        training = (
            sum(held.age for number, held in self.work.running.items() if number != UNREGULARIZED) / budget.epochs
        )
        value = best.values[0] if best else None
        gap = best.user_attrs[RESULT]["metrics"].get("gap") if best else None
        work = min(1.0, (spent(self.counts) + training) / budget.trials)
        self.progress.update(Snapshot(budget.trials, self.counts, work, self.goals[0], value, gap))


def _key(number: int) -> str:
    return "baseline" if number == UNREGULARIZED else f"trial-{number}"
