"""The search loop: reports, judges, settles, tells Optuna and asks for trials, at the end of each epoch of a training.

Its order makes it repeatable. At each tick of the worker's clock all trials report before any is judged; what was judged
is written down and settled; only then Optuna is told, and new trials are asked for. A process killed anywhere leaves
either an unsettled tick, which the next one trains and judges again from the same state, or a settled one, of which it
does what was not done yet.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from optuna.trial import FrozenTrial

from wdsearch.errors import BuildError, WdsearchError
from wdsearch.files import locked
from wdsearch.population.cohort import TrialEpoch
from wdsearch.population.training import Training, TrainingCallback
from wdsearch.search.best_model import read_weights, write_weights
from wdsearch.search.interruption import StopRequest
from wdsearch.search.progress import SearchProgress, Snapshot
from wdsearch.search.training_facts import training_facts
from wdsearch.search.worker import UNREGULARIZED, Work
from wdsearch.storage.attributes import BASELINE, FACTS, RESULT, TOKEN
from wdsearch.storage.optuna_tables import report, set_attribute
from wdsearch.storage.provenance import provenance
from wdsearch.storage.results import best_trial, counts, is_better, spent
from wdsearch.strategies.pruners import HalvingPruner, rungs
from wdsearch.study.factory import TrialFactory
from wdsearch.study.space import Configuration
from wdsearch.tracking.description import trial_description
from wdsearch.tracking.tracker import DESCRIPTION, Tracker, ending
from wdsearch.trial.result import PRUNED, Result, flat, values, violations


class TrialsFailedError(WdsearchError):
    """A study that cannot go on: a whole batch of trials in a row could not be built."""

    exit_code = 1


class SearchLoop(TrainingCallback):
    """Feeds a training with a worker's trials, and records how they end. How many are fused changes no result."""

    def __init__(
        self,
        work: Work,
        factory: TrialFactory,
        tracker: Tracker,
        progress: SearchProgress,
        stop: StopRequest,
        folder: Path,
    ) -> None:
        self.work, self.factory, self.folder = work, factory, folder
        self.tracker, self.progress, self.stop = tracker, progress, stop
        self.config, self.study = work.config, work.study
        self.goals = self.config.objective.goals
        self.counts: dict[str, int] = {}
        self.best: FrozenTrial | None = None

    # -- a training calls --------------------------------------------------------------------------------------

    def begin(self, training: Training) -> None:
        """Let the trials that wait, or are in a checkpoint, join."""
        self._refresh()
        self._admit(training)
        self._show()

    def check(self) -> None:
        """Raise StoppedError if this process is to end."""
        self.stop.check()

    def end_epoch(self, training: Training) -> None:
        """Report, judge, settle, tell, and ask for new trials, in an order that does not depend on how trials were fused."""
        self.work.tick += 1
        epochs = [training.trial_epochs[number] for number in sorted(training.trial_epochs)]
        for epoch in epochs:
            self.work.running[epoch.number].age = epoch.age
            self.tracker.log(_key(epoch.number), epoch.age, epoch.metrics | epoch.trends)
        unsettled = [epoch for epoch in epochs if epoch.end or epoch.age > self.work.running[epoch.number].settled]
        pruned, judged = self._judge([epoch for epoch in unsettled if epoch.number != UNREGULARIZED and not epoch.end])
        leaving = [epoch for epoch in unsettled if epoch.end or epoch.number in pruned]
        if leaving or judged:
            self._settle({epoch.number: self._result(epoch, training) for epoch in leaving}, training)
        training.prune({epoch.number for epoch in leaving})
        self.work.leases.tick = max(self.work.leases.tick, self.work.tick)
        if leaving:
            self.work.take_over()
            self.work.ask()
        self._admit(training)
        self._save(training)
        self.tracker.flush()
        self._show()

    # -- trials join -------------------------------------------------------------------------------------------

    def _admit(self, training: Training) -> None:
        """Let those join whose tick has come, and those of a checkpoint go on."""
        self._admit_saved(training)
        numbers = self.work.waiting.pop(self.work.tick, [])
        networks: dict[str, dict[int, L.LightningModule]] = {}
        errors: list[str] = []
        for number in numbers:
            settings = self.work.running[number].settings
            try:
                module = self._build(settings)
            except BuildError as error:
                errors.append(str(error))
                self._fail(number, error)
            else:
                networks.setdefault(repr(sorted(settings.model.items())), {})[number] = module
                self._start_tracking(number, settings)
        for trials in networks.values():
            training.admit(trials, fuse=self._fuse(self.work.running[min(trials)].settings))
        if errors and not networks:
            raise TrialsFailedError(f"none of {len(numbers)} new trials could be built: {errors[-1]}")

    def _admit_saved(self, training: Training) -> None:
        for saved in self.work.saved:
            numbers = [number for number in saved["numbers"] if number in self.work.running]
            settings = {number: self.work.running[number].settings for number in numbers}
            modules = {number: self.factory.trial(settings[number]) for number in numbers}
            training.admit(modules, saved, fuse=all(self._fuse(settings[number]) for number in numbers))
            for number in numbers:
                self._start_tracking(number, settings[number])
        self.work.saved = []

    def _fuse(self, settings: Configuration) -> bool:
        """True if trials of this network are fused; if not, one line says why."""
        reason = self.factory.why_alone(settings.model)
        if reason:
            self.progress.note_once(f"trials are trained one after another, for {reason}")
        return reason is None

    def _build(self, settings: Configuration) -> L.LightningModule:
        """One trial, its network tried on a batch. Raises BuildError."""
        module = self.factory.trial(settings)
        self.factory.why_alone(settings.model)
        return module

    def _fail(self, number: int, error: BuildError) -> None:
        """Give a trial up that cannot be built; without the baseline a study cannot go on."""
        trial = self.work.running.pop(number).trial
        if trial is None:
            raise error
        self.work.fail(trial, str(error))

    def _save(self, training: Training) -> None:
        try:
            self.work.save(training.cohorts)
        except OSError as error:
            self.progress.note(f"no checkpoint could be written, training goes on: {error}")

    def _start_tracking(self, number: int, settings: Configuration) -> None:
        kind = "baseline" if number == UNREGULARIZED else "trial"
        tags = {"wdsearch.kind": kind, "wdsearch.study": self.config.study, "seed": str(self.config.seed)}
        tags |= {"wdsearch.gap": "augmented"} if self.factory.augmented else {}
        params, prefix = self.factory.params(settings), "" if self.factory.solo else "model."
        arguments = {prefix + name: value for name, value in settings.model.items()}
        tags[DESCRIPTION] = trial_description(params, arguments)
        inherited = self.work.running[number].inherited
        tags |= provenance(self.tracker.libraries)
        self.tracker.start_trial(_key(number), params, tags, self.factory.dataset, inherited)

    # -- trials are judged and leave ---------------------------------------------------------------------------

    def _judge(self, epochs: Sequence[TrialEpoch]) -> tuple[set[int], bool]:
        """Numbers to prune, and whether any was judged: all of a rung report before the first of it is."""
        pruner, budget = self.study.pruner, self.config.budget.epochs
        reporting = [epoch for epoch in epochs if epoch.age in rungs(pruner, budget, epoch.number)]
        if not reporting:
            return set(), False
        values_of = {epoch.number: (epoch.age, values(flat(epoch.result), self.goals)[0]) for epoch in reporting}
        report(self.study, {self._trial(number): value for number, value in values_of.items()})
        seen = self.work.look()
        if isinstance(pruner, HalvingPruner):
            return {n for n in values_of if pruner.outside(seen[n], seen.get_trials(), seen.direction)}, True
        return {n for n in values_of if pruner.prune(seen, seen[n])}, True

    def _trial(self, number: int) -> int:
        """Optuna's id of a trial in training."""
        trial = self.work.running[number].trial
        assert trial is not None
        return trial

    def _result(self, epoch: TrialEpoch, training: Training) -> Result:
        settings = self.work.running[epoch.number].settings
        metrics = {name: value for name, value in flat(epoch.result).items() if math.isfinite(value)}
        own = (settings.lr, settings.strengths, settings.model)
        end, diagnostics = epoch.end or PRUNED, self._diagnostics(epoch.number, training)
        return Result(end, epoch.age, metrics, *own, diagnostics, epoch.best_age)

    def _diagnostics(self, number: int, training: Training) -> dict[str, Any]:
        """Effect of λ on a trial's weights; a network that cannot be looked at is said once, and loses nothing else."""
        try:
            return training.diagnosis(number).as_dict()
        except Exception as error:  # whatever a user's network raises
            reason = f"{type(error).__name__}: {error}"
            self.progress.warn_once(f"no diagnostics, for the network cannot be looked at: {reason}")
            return {}

    def _settle(self, results: Mapping[int, Result], training: Training) -> None:
        """Write down what became of the leaving trials, settle it, and tell Optuna."""
        for number, result in results.items():
            self.tracker.end_trial(_key(number), *ending(result), result.epochs, result.diagnostics)
        self.tracker.flush()  # before Optuna is told: a crash in between repeats the end, and loses nothing
        self._keep_best_weights(results, training)
        trials = {number: self.work.running.pop(number).trial for number in results}
        ended = {trial: results[number] for number, trial in trials.items() if trial is not None}
        if UNREGULARIZED in results:
            self.study.set_user_attr(BASELINE, results[UNREGULARIZED].as_dict())
        if ended:
            set_attribute(self.study, RESULT, {trial: result.as_dict() for trial, result in ended.items()})
        self.work.leases.settle(self.work.tick)
        self.work.tell(ended)
        self._refresh()

    def _refresh(self) -> None:
        """Read how the study stands, other workers' trials included."""
        seen = self.work.look()
        self.counts, self.best = counts(seen), best_trial(seen)

    def _keep_best_weights(self, results: Mapping[int, Result], training: Training) -> None:
        """Store the weights of a new best trial before anything is settled, so that no crash loses them; others do the same."""
        best: tuple[int, list[float]] | None = None
        for number, result in results.items():
            feasible = all(excess <= 0 for excess in violations(result.metrics, self.config.objective.limits).values())
            if number != UNREGULARIZED and result.is_complete and feasible:
                objectives = values(result.metrics, self.goals)
                if self.best is None or is_better(objectives, self.best.values, self.study.directions):
                    with locked(self.folder / "best.pt.lock"):
                        self._replace_weights(number, objectives, training)
                    if best is None or is_better(objectives, best[1], self.study.directions):
                        best = number, objectives
        if best is not None:
            facts = training_facts(self.factory, self.work.running[best[0]].settings)
            set_attribute(self.study, FACTS, {self._trial(best[0]): facts})

    def _replace_weights(self, number: int, objectives: list[float], training: Training) -> None:
        path, token = self.folder / "best.pt", self.study.user_attrs[TOKEN]
        stored = read_weights(path)
        if stored.get("study") != token or is_better(objectives, stored["values"], self.study.directions):
            write_weights(path, token, number, objectives, training.state(number))

    def _show(self) -> None:
        budget, best = self.config.budget, self.best
        ages = [trial.age for number, trial in self.work.running.items() if number != UNREGULARIZED]
        value = best.values[0] if best else None
        gap = best.user_attrs[RESULT]["metrics"].get("gap") if best else None
        work = min(1.0, (spent(self.counts) + sum(ages) / budget.epochs) / budget.trials)
        self.progress.update(Snapshot(budget.trials, self.counts, work, self.goals[0], value, gap))


def _key(number: int) -> str:
    return "baseline" if number == UNREGULARIZED else f"trial-{number}"
