"""From a finished study to what λ did in it: trains the design around its winner, keeps every outcome, and tests the claims."""

import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from threading import Event
from typing import Any

import lightning as L
import optuna

from wdsearch.analysis.claims import claims_of
from wdsearch.analysis.design import Axes, Design, Schedule, design
from wdsearch.analysis.evidence import Evidence
from wdsearch.analysis.outcomes import Explanation, Outcome
from wdsearch.errors import StoppedError
from wdsearch.search.interruption import stopping_by_signal
from wdsearch.search.progress import SearchProgress
from wdsearch.search.replicate import Replica, configuration_of, replicate
from wdsearch.search.run import prepare, quiet_libraries
from wdsearch.storage.attributes import EXPLANATION
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

OUTCOMES, FILE = "outcomes:{seed}", "explain.json"
SEEDS = 5


class ExplainError(Exception):
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

    All is trained fused, on training rows, and judged on validation rows: `wdsearch.analysis.design` says what. The outcomes of a
    seed are stored when it is done. Called again, only what is missing is trained: after an interruption, for more `seeds`
    (fewer than five decide nothing), or after the search went on and found another winner, whose outcomes then replace the
    former's. `source` is the study as `run` took it, needed if it has own objects.

    Raises StudyNotFoundError if there is no such study or no complete trial in it, ExplainError if its model is a LightningModule
    with a Trainer of its own, NotStoredError for own objects that are not given, StudyChangedError if `source` or the data
    are others,
    InterruptedStudyError after Ctrl-C or SIGTERM, and what `run` raises for data and networks.
    """
    place = Home(home)
    result = load_result(study, place, storage)
    best = winner(result)
    config = restored(result, source, f"wdsearch.explain({study!r}, source=...)")
    if seeds < 1:
        raise ExplainError(f"seeds is {seeds}; it takes at least 1, and at least 5 for a verdict")
    with SearchProgress(progress) as bar, quiet_libraries(), clear_storage_errors(place, storage):
        factory = _prepared(config, result, bar)
        own = configuration_of(best.result)
        drops = bool(factory.module(own).layers_of("dropout"))
        plan = design(own, Schedule(factory.rate_sum, factory.largest_factor), drops)
        evidence = Evidence(_outcomes(plan, factory, result.optuna_study, seeds, bar), plan.axes)
        bar.say("testing the claims")
        claims, epochs = claims_of(evidence), config.budget.epochs
        found = Explanation(study, best.number, epochs, seeds, plan.axes.decay, evidence.outcomes, claims)
        _keep(found, result)
        _track(reopen_tracker(result, place, storage), result.folder / FILE, bar)
    return found


# -- the study again -----------------------------------------------------------------------------------------------


def _prepared(config: StudyConfig, result: StudyResult, bar: SearchProgress) -> TrialFactory:
    """What builds the study's trials; its data must be those that were searched on."""
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
    begun = study.user_attrs.get("identity", {})
    found = identity(config, describe_data(config, data)["digest"])
    return {key: value for key, value in found.items() if not key.startswith("search")} | {
        key: value for key, value in begun.items() if key.startswith("search")
    }


# -- outcomes ------------------------------------------------------------------------------------------------------


def _outcomes(
    plan: Design, factory: TrialFactory, study: optuna.Study, seeds: int, bar: SearchProgress
) -> tuple[Outcome, ...]:
    """Those of every cell with every seed: stored ones, and the rest trained."""
    named = {_digest(settings): settings for settings in plan.configurations}
    kept = {seed: _stored(study, seed, named) for seed in range(seeds)}
    stopping = _Stopping(bar, len(named), seeds)
    with stopping_by_signal(stopping.asked.set, stopping.text):
        for seed, found in kept.items():
            missing = {name: settings for name, settings in named.items() if name not in found}
            stopping.begin(sum(map(len, kept.values())), len(missing))
            if missing:
                found |= replicate(factory.config, factory.data, missing, seed, stopping.watch)
                study.set_user_attr(OUTCOMES.format(seed=seed), {name: one.as_dict() for name, one in found.items()})
    return tuple(
        _outcome(arm, seed, settings, plan.axes, found[_digest(settings)])
        for seed, found in kept.items()
        for arm, settings in plan.cells
    )


class _Stopping:
    """Shows how far the trainings are, and ends them when asked to."""

    def __init__(self, bar: SearchProgress, configurations: int, seeds: int) -> None:
        self.bar, self.runs, self.asked = bar, configurations * seeds, Event()
        self.design = f"{configurations} configurations × {seeds} seeds"
        self.done, self.missing = 0, 0

    def begin(self, done: int, missing: int) -> None:
        """So many trainings are done, and so many begin together."""
        self.done, self.missing = done, missing

    def watch(self, share: float) -> None:
        """Raise StoppedError if somebody asked for it; `share` is of the trainings that began together."""
        if self.asked.is_set():
            raise StoppedError
        count = self.done + share * self.missing
        self.bar.replicate(count / self.runs, f"{int(count)}/{self.runs} trainings · {self.design}")

    def text(self) -> str:
        """What is said when it was stopped."""
        return f"stopped: {self.done} of {self.runs} trainings are kept; continue with the same command"


def _stored(study: optuna.Study, seed: int, named: Mapping[str, Configuration]) -> dict[str, Replica]:
    """What was kept of a seed, as far as the design asks for it: a result depends on its configuration and seed alone."""
    kept = study.user_attrs.get(OUTCOMES.format(seed=seed), {})
    return {name: Replica(**one) for name, one in kept.items() if name in named}


def _digest(settings: Configuration) -> str:
    """A short name of a configuration."""
    text = json.dumps([settings.lr, sorted(settings.strengths.items()), sorted(settings.model.items())], default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _outcome(arm: str, seed: int, settings: Configuration, axes: Axes, found: Replica) -> Outcome:
    """With the strengths that were varied, where they are off too."""
    strengths = dict.fromkeys((axes.decay, axes.l1), 0.0) | settings.strengths
    return Outcome(arm, seed, settings.lr, strengths, settings.model, found.end, found.metrics, found.measures)


# -- where it goes -------------------------------------------------------------------------------------------------


def _keep(found: Explanation, result: StudyResult) -> None:
    """In the study's storage, and as a file in its folder."""
    content = found.as_dict()
    result.optuna_study.set_user_attr(EXPLANATION, content)
    result.folder.mkdir(parents=True, exist_ok=True)
    new = result.folder / f"{FILE}.new"
    new.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    os.replace(new, result.folder / FILE)


def _track(tracker: Tracker | None, path: Path, bar: SearchProgress) -> None:
    """Add the file to the study's record, if there is one."""
    if tracker is None:
        return
    tracker.log_artifact(path, "explain")
    tracker.flush()
    tracker.start_delivery()
    delivery = tracker.finish(progress=bar.delivering)
    if delivery.note:
        bar.note(f"[yellow]warning[/yellow] {delivery.note}")
    if delivery.undelivered:
        bar.note(f"[yellow]warning[/yellow] the explanation has not reached MLflow yet: wdsearch sync {tracker.study}")
