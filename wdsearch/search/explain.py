"""Explains what λ did in a finished study: trains the design around its winner, stores every outcome, and tests the claims."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import lightning as L
import optuna

from wdsearch.analysis.claims import claims_of
from wdsearch.analysis.design import Axes, Design, Schedule, design
from wdsearch.analysis.evidence import Evidence
from wdsearch.analysis.outcomes import Explanation, Outcome
from wdsearch.errors import WdsearchError
from wdsearch.files import replacing
from wdsearch.search.interruption import StopRequest, stopping_by_signal
from wdsearch.search.prepare import prepare, quiet_libraries
from wdsearch.search.progress import SearchProgress
from wdsearch.search.replicate import Replica, configuration_of, replicate
from wdsearch.storage.attributes import EXPLANATION, IDENTITY, OUTCOMES
from wdsearch.storage.home import Home, clear_storage_errors
from wdsearch.storage.restore import restored
from wdsearch.storage.results import StudyResult, load_result, winner
from wdsearch.storage.studies import check_same, identity
from wdsearch.study.build import describe_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import StudyConfig
from wdsearch.study.space import Configuration
from wdsearch.tracking import reopen_tracker
from wdsearch.tracking.tracker import Tracker

FILE = "explain.json"
SEEDS = 10


class ExplainError(WdsearchError):
    """A study that cannot be explained, or not from what is stored of it."""


def explain(
    study: str,
    *,
    source: str | Path | Mapping[str, Any] | StudyConfig | None = None,
    home: str | Path | None = None,
    storage: str | None = None,
    seeds: int = SEEDS,
    progress: bool = True,
) -> Explanation:
    """Vary λ, and nothing else, from a study's best configuration, with fresh seeds, and test what the textbook says of it.

    All is trained fused, on training rows, and judged on validation rows, by the plan of `wdsearch.analysis.design`. The outcomes
    of a seed are stored when it is done. Called again, only what is missing is trained: after an interruption, for more `seeds`
    (fewer than five decide nothing; ten choose a best λ and judge it), or after the search went on and found another winner,
    whose outcomes then replace the former's. `source` is the study as `run` took it, needed if it has own objects.

    Raises StudyNotFoundError if there is no such study or no complete trial in it, ExplainError if its model is a LightningModule
    with a Trainer of its own, NotStoredError for own objects that are missing, StudyChangedError if `source` or the data
    are others,
    InterruptedStudyError after Ctrl-C or SIGTERM, and what `run` raises for data and networks.
    """
    study_home = Home(home)
    result = load_result(study, study_home, storage)
    best = winner(result)
    config = restored(result, source, f"wdsearch.explain({study!r}, source=...)")
    if seeds < 1:
        raise ExplainError(
            f"seeds is {seeds}; it takes at least 1; 5 for a verdict, 10 where a best λ is chosen and judged"
        )
    with SearchProgress(progress) as bar, quiet_libraries(), clear_storage_errors(study_home, storage):
        factory = _prepared(config, result, bar)
        own = configuration_of(best.result)
        plan = design(own, Schedule(factory.rate_sum, factory.largest_factor), factory.drops(own))
        evidence = Evidence(_outcomes(plan, factory, result.optuna_study, seeds, bar), plan.axes)
        bar.say("testing the claims")
        claims, epochs = claims_of(evidence), config.budget.epochs
        explanation = Explanation(study, best.number, epochs, seeds, plan.axes.decay, evidence.outcomes, claims)
        _store(explanation, result)
        _track(reopen_tracker(result, study_home, storage), result.folder / FILE, bar)
    return explanation


# -- the study again -----------------------------------------------------------------------------------------------


def _prepared(config: StudyConfig, result: StudyResult, bar: SearchProgress) -> TrialFactory:
    """Factory of the study's trials; its data must be those that were searched on."""
    factory = prepare(config, bar)
    if factory.solo:
        text = "has a LightningModule as its model, which trains as it likes and has no λ of wdsearch to vary"
        raise ExplainError(
            f"study {result.study!r} {text}; bring an nn.Module or a wdsearch.RegularizedModule for that"
        )
    check_same(result.optuna_study, _identity(config, factory.data, result.optuna_study))
    return factory


def _identity(config: StudyConfig, data: L.LightningDataModule, study: optuna.Study) -> dict[str, Any]:
    """The study's identity; how it was searched does not matter any more."""
    stored = study.user_attrs.get(IDENTITY, {})
    current = identity(config, describe_data(config, data)["digest"])
    return {key: value for key, value in current.items() if not key.startswith("search")} | {
        key: value for key, value in stored.items() if key.startswith("search")
    }


# -- outcomes ------------------------------------------------------------------------------------------------------


def _outcomes(
    plan: Design, factory: TrialFactory, study: optuna.Study, seeds: int, bar: SearchProgress
) -> tuple[Outcome, ...]:
    """Outcomes of every cell with every seed: stored ones, and the rest trained."""
    named = {_digest(settings): settings for settings in plan.configurations}
    replicas = {seed: _stored(study, seed, named) for seed in range(seeds)}
    trainings = _Trainings(bar, len(named), seeds)
    with stopping_by_signal(trainings.stop.make, trainings.stopped_text):
        for seed, of_seed in replicas.items():
            missing = {name: settings for name, settings in named.items() if name not in of_seed}
            trainings.begin(sum(map(len, replicas.values())), len(missing))
            if missing:
                of_seed |= replicate(factory.config, factory.data, missing, seed, trainings.watch)
                study.set_user_attr(OUTCOMES.format(seed=seed), {name: one.as_dict() for name, one in of_seed.items()})
    return tuple(
        _outcome(arm, seed, settings, plan.axes, of_seed[_digest(settings)])
        for seed, of_seed in replicas.items()
        for arm, settings in plan.cells
    )


class _Trainings:
    """Count of the trainings that are done: shows it, and ends them when asked to."""

    def __init__(self, bar: SearchProgress, configurations: int, seeds: int) -> None:
        self.bar, self.runs, self.stop = bar, configurations * seeds, StopRequest()
        self.design = f"{configurations} configurations × {seeds} seeds"
        self.done, self.missing = 0, 0

    def begin(self, done: int, missing: int) -> None:
        """Note how many trainings are done, and how many begin together."""
        self.done, self.missing = done, missing

    def watch(self, share: float) -> None:
        """Raise StoppedError if somebody asked for it; `share` is of the trainings that began together."""
        self.stop.check()
        count = self.done + share * self.missing
        self.bar.replicate(count / self.runs, f"{int(count)}/{self.runs} trainings · {self.design}")

    def stopped_text(self) -> str:
        """Message of the interruption."""
        return f"stopped: {self.done} of {self.runs} trainings are kept; continue with the same command"


def _stored(study: optuna.Study, seed: int, named: Mapping[str, Configuration]) -> dict[str, Replica]:
    """Stored outcomes of a seed that the design asks for: a result depends on its configuration and seed alone."""
    stored = study.user_attrs.get(OUTCOMES.format(seed=seed), {})
    return {name: Replica(**one) for name, one in stored.items() if name in named}


def _digest(settings: Configuration) -> str:
    """A short name of a configuration."""
    text = json.dumps([settings.lr, sorted(settings.strengths.items()), sorted(settings.model.items())], default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _outcome(arm: str, seed: int, settings: Configuration, axes: Axes, replica: Replica) -> Outcome:
    """Outcome of a cell with the strengths that were varied, where they are off too."""
    strengths = dict.fromkeys((axes.decay, axes.l1), 0.0) | settings.strengths
    return Outcome(arm, seed, settings.lr, strengths, settings.model, replica.end, replica.metrics, replica.measures)


# -- where it goes -------------------------------------------------------------------------------------------------


def _store(explanation: Explanation, result: StudyResult) -> None:
    """Write an explanation into the study's storage, and as a file into its folder."""
    content = explanation.as_dict()
    result.optuna_study.set_user_attr(EXPLANATION, content)
    with replacing(result.folder / FILE) as new:
        new.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _track(tracker: Tracker | None, path: Path, bar: SearchProgress) -> None:
    """Add the file to the study's record, if there is one."""
    if tracker is None:
        return
    tracker.log_artifact(path, "explain")
    tracker.flush()
    tracker.start_delivery()
    delivery = tracker.finish(progress=bar.delivering)
    if delivery.note:
        bar.warn(delivery.note)
    if delivery.undelivered:
        bar.warn(f"the explanation has not reached MLflow yet: wdsearch sync {tracker.study}")
