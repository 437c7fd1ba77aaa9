"""The trials and the clock of one worker: asked for, taken up after a crash, or taken over from the dead."""

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from wdsearch.population.checkpoint import Saved, read_checkpoint, write_checkpoint
from wdsearch.population.cohort import Cohort
from wdsearch.population.memory import device_of
from wdsearch.search.ask import ask
from wdsearch.storage.attributes import BASELINE, ERROR, RESULT, SLOT
from wdsearch.storage.leases import MOST_TAKEOVERS, Leases
from wdsearch.storage.optuna_tables import End, finish, set_attribute
from wdsearch.storage.slots import BASELINE_SLOT, Slot
from wdsearch.strategies.optuna_private import Reading, trial_id
from wdsearch.study.load import StudyConfig
from wdsearch.study.space import Configuration, baseline, configuration, distributions
from wdsearch.trial.result import Result, values, violations

UNREGULARIZED = BASELINE_SLOT
CHECKPOINT_S = 60.0
"""Time between two checkpoints."""


@dataclass
class Running:
    """A trial of this worker: begun at the tick `born`; up to the age `settled` an earlier process judged it.

    `trial` is Optuna's id of it; the baseline has none. An `inherited` one was another worker's.
    """

    trial: int | None
    settings: Configuration
    born: int
    settled: int
    age: int = 0
    inherited: bool = False


class Work:
    """The trials of one worker and its clock.

    The schedule belongs to the study, not to the machine: trials are asked in batches of `search.batch`, two batches at
    first and then one whenever at most half a batch is left in training.
    `running` holds all by number (the baseline is `UNREGULARIZED`), `waiting` those yet to begin by the tick at which they
    do, `saved` cohorts of a checkpoint that begin at once. A trial that was settled already, by a worker that died before
    Optuna knew, is reported to it now; one whose workers keep dying is given up. All decisions are made by the trials as they
    were `seen`: reading them all takes most of a search's own time.
    """

    def __init__(self, config: StudyConfig, study: optuna.Study, leases: Leases, rate_sum: float) -> None:
        self.config, self.study, self.leases, self.rate_sum = config, study, leases, rate_sum
        self.distributions = distributions(config)
        self.running: dict[int, Running] = {}
        self.waiting: dict[int, list[int]] = defaultdict(list)
        self.saved: list[Saved] = []
        self.tick = 0
        self._open: list[int] = []
        self._inherited: set[int] = set()
        self._claimed_at_tick = 0
        self._baseline_is_recorded = False
        self._device = device_of(config.trainer.accelerator)
        self._next_checkpoint = time.monotonic() + CHECKPOINT_S
        self.look()

    def look(self) -> Reading:
        """Read all trials, other workers' too."""
        self.seen = Reading(self.study)
        return self.seen

    @property
    def checkpoint(self) -> Path:
        """The file of this worker's checkpoint."""
        return self.leases.folder / f"{self.leases.worker}.pt"

    def save(self, cohorts: Sequence[Cohort]) -> None:
        """Write a checkpoint if one is due: where writing takes longer, seldom enough to cost a twentieth of the time.

        Raises OSError.
        """
        begun_at = time.monotonic()
        if not cohorts or begun_at < self._next_checkpoint:
            return
        try:
            write_checkpoint(self.checkpoint, self.tick, cohorts, self._device)
        finally:
            self._next_checkpoint = begun_at + max(CHECKPOINT_S, 20 * (time.monotonic() - begun_at))

    def complete(self) -> bool:
        """True if the budget is spent and nothing is in training anywhere."""
        self.look()
        self._give_up_doubles()
        claimed = self.leases.claimed() - {BASELINE_SLOT}
        return len(claimed) >= self._limit() and not self._unfinished() and self._has_baseline()

    def resume(self) -> None:
        """Take up the clock of a worker that was killed: settled ticks are done, its trials begin when they did."""
        slots = self.leases.join()
        self.look()
        self._inherited |= {slot.slot for slot in slots}
        self.tick = self.leases.settled
        self._claimed_at_tick = sum(slot.born == self.tick for slot in slots if slot.slot != BASELINE_SLOT)
        self._hold(slots)
        if self.running:
            start = self._wait_as_before()
            self.look()  # settled trials were told to Optuna just now, and the sampler is to see it
            self.ask()  # for the trials due at the settled tick, before the clock goes back
            self.tick = start

    def again(self) -> "Work":
        """The same worker anew, as if it had been killed and started again."""
        self.leases.release()
        old = self.leases
        leases = Leases(old.engine, old.study_id, old.folder, former=old.worker or old.former)
        work = Work(self.config, self.study, leases, self.rate_sum)
        try:
            work.resume()
        except BaseException:
            leases.let_go()
            raise
        return work

    def gather(self) -> bool:
        """Ask for trials, or take them over; False if there are none for this worker now."""
        if not (self.waiting or self.saved):
            self.look()
            self.take_over()
            if not self._has_baseline() and self.leases.claim_baseline(self.tick):
                self._begin_now([Slot(BASELINE_SLOT, self.leases.worker, self.tick)])
            self.ask()
        return any(self.waiting.values()) or bool(self.saved)

    def ask(self) -> None:
        """Ask for a batch if at most half of one is in training, within what the budget leaves, to begin now."""
        now, batches = self.tick, 1 if self.tick else 2
        older = sum(trial.born < now for number, trial in self.running.items() if number != UNREGULARIZED)
        slots = self._open
        if older <= self.config.batch // 2:
            count = batches * self.config.batch - self._claimed_at_tick
            slots = slots + self.leases.claim(count, self._limit(), now)
        self._open, self._claimed_at_tick = [], 0
        if slots:
            ask(self.seen, self.config, self.distributions, slots)
            self.look()
            self._give_up_doubles()
            self._begin_now(slot for slot in self.leases.owned() if slot.slot in slots)

    def take_over(self) -> None:
        """Take dead workers' unfinished slots, to begin now, if there is room."""
        if len(self.running) <= self.config.batch // 2:
            slots = self.leases.take_over(self._unfinished(), self.tick)
            self._inherited |= {slot.slot for slot in slots}
            if slots:
                self.look()  # who was silent may have reported meanwhile
                self._begin_now(slots)
                self.look()  # settled trials were told to Optuna just now

    def tell(self, results: Mapping[int, Result]) -> None:
        """Tell Optuna how trials ended, by their ids; nothing of one that another worker, to which it was handed on, ended."""
        if not results:
            return
        reported = {trial_id(trial): trial for trial in self.seen.get_trials(deepcopy=False)}
        for trial, result in results.items():
            excesses = violations(result.metrics, self.config.objective.limits) if result.is_complete else {}
            with suppress(UpdateFinishedTrialError):
                for name, excess in excesses.items():
                    Trial(self.study, trial).set_constraint(name, excess)
        finish(self.study, {trial: self._end(reported[trial], result) for trial, result in results.items()})

    def _end(self, trial: FrozenTrial, result: Result) -> End:
        """State and values as `Study.tell` stores them: those of a trial that is not complete are the last that it reported."""
        if result.is_complete:
            return TrialState.COMPLETE, values(result.metrics, self.config.objective.goals)
        last = trial.intermediate_values.get(trial.last_step) if trial.last_step is not None else None
        single = len(self.study.directions) == 1
        return TrialState.PRUNED, [last] if single and last is not None and not math.isnan(last) else None

    def fail(self, trial: int, reason: str) -> None:
        """Give a trial up, by its id; its part of the budget goes to another."""
        set_attribute(self.study, ERROR, {trial: reason})
        finish(self.study, {trial: (TrialState.FAIL, None)})

    def _give_up_doubles(self) -> None:
        """Fail the second of two trials of a slot, of which one was asked for by a worker that was taken for dead meanwhile."""
        trials = self.seen.get_trials(deepcopy=False)
        first = {trial.number for trial in by_slot(trials).values()}
        for trial in trials:
            if trial.state == TrialState.RUNNING and SLOT in trial.user_attrs and trial.number not in first:
                self.fail(trial_id(trial), "another worker had asked for this trial before")

    def _begin_now(self, slots: Iterable[Slot]) -> None:
        before = set(self.running)
        self._hold(slots)
        numbers = [number for number in self.running if number not in before]
        if numbers:
            self.waiting[self.tick] += numbers

    def _hold(self, slots: Iterable[Slot]) -> None:
        """Sort slots: not asked for yet, to be trained, or settled."""
        trials = trials_by_slot(self.seen)
        for slot in slots:
            trial = trials.get(slot.slot)
            if slot.slot == BASELINE_SLOT:
                if not self._has_baseline():
                    self.running[UNREGULARIZED] = Running(
                        None, baseline(self.config), slot.born, slot.settled, inherited=slot.slot in self._inherited
                    )
            elif trial is None:
                self._open.append(slot.slot)
            elif trial.state == TrialState.RUNNING:
                self._hold_trial(slot, trial)

    def _hold_trial(self, slot: Slot, trial: FrozenTrial) -> None:
        settled, result = max(slot.settled, self.leases.settled - slot.born), trial.user_attrs.get(RESULT)
        own = trial_id(trial)
        if result and result["epochs"] <= settled:
            self.tell({own: Result(**result)})
        elif slot.takeovers > MOST_TAKEOVERS:
            age = slot.furthest
            self.fail(own, f"its worker died {slot.takeovers} times without getting the trial beyond epoch {age}")
        else:
            settings = configuration(self.config, trial.params, self.rate_sum)
            self.running[trial.number] = Running(
                own, settings, slot.born, settled, inherited=slot.slot in self._inherited
            )

    def _wait_as_before(self) -> int:
        """Let trials begin where a checkpoint has them, else when they began; the tick at which the clock starts."""
        tick, self.saved = read_checkpoint(self.checkpoint, self.running, self._device)
        known = {number for saved in self.saved for number in saved["numbers"]}
        if any(trial.born < tick and number not in known for number, trial in self.running.items()):
            known, self.saved = set(), []
        for number in self.running.keys() - known:
            self.waiting[self.running[number].born].append(number)
        return tick if self.saved else min(self.waiting)

    def _limit(self) -> int:
        """Slots that the budget allows: those of failed trials are handed out again."""
        failed = sum(trial.state == TrialState.FAIL for trial in trials_by_slot(self.seen).values())
        return self.config.budget.trials + failed

    def _has_baseline(self) -> bool:
        self._baseline_is_recorded = self._baseline_is_recorded or BASELINE in self.study.user_attrs
        return self._baseline_is_recorded

    def _unfinished(self) -> set[int]:
        finished = {slot for slot, trial in trials_by_slot(self.seen).items() if trial.state.is_finished()}
        finished |= {BASELINE_SLOT} if self._has_baseline() else set()
        return self.leases.claimed() - finished


def trials_by_slot(study: optuna.Study) -> dict[int, FrozenTrial]:
    """The trial of each slot; if a slot has two, the first."""
    return by_slot(study.get_trials(deepcopy=False))


def by_slot(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The trial of each slot among some; if a slot has two, the first."""
    first: dict[int, FrozenTrial] = {}
    for trial in trials:
        if SLOT in trial.user_attrs:
            first.setdefault(trial.user_attrs[SLOT], trial)
    return first
