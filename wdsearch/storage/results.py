"""Reads a study's result from its storage alone: nothing here trains, and torch is not imported."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from wdsearch.errors import StudyNotFoundError
from wdsearch.groups import split_key
from wdsearch.storage.attributes import (
    BASELINE,
    CONCLUDED,
    CONFIG,
    GOALS,
    INVARIANT,
    LINK,
    MEMORY,
    METRIC,
    RESULT,
    TRAINING,
)
from wdsearch.storage.home import Home
from wdsearch.trial.result import DIVERGED, Result

DECAYS = ("weight_decay", "l2", "l1")


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial: its number in Optuna, its state there, the values of the goals, and its result."""

    number: int
    state: str
    values: tuple[float, ...]
    result: Result


@dataclass(frozen=True)
class StudyResult:
    """A study as it stands. `best` is None until a trial is complete; of several goals' Pareto front the first goal decides.

    `invariant` is the share of the decayed weights whose scale norm layers take out.
    """

    study: str
    goals: tuple[str, ...]
    metric: str
    config: dict[str, Any]
    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None
    pareto: tuple[int, ...]
    baseline: Result | None
    counts: dict[str, int]
    link: str | None
    memory: dict[str, int]
    training: str
    invariant: float
    folder: Path
    optuna_study: optuna.Study = field(repr=False, compare=False)

    @property
    def weights(self) -> Path:
        """File with the best trial's weights."""
        return self.folder / "best.pt"


def load_result(study: str | optuna.Study, home: Home | None = None, storage: str | None = None) -> StudyResult:
    """A study's result; raises StudyNotFoundError.

    >>> study = optuna.create_study(study_name="digits")
    >>> result = load_result(study)
    >>> result.study, result.best, result.counts["complete"]
    ('digits', None, 0)
    """
    home = home or Home()
    opened = home.load(study, storage) if isinstance(study, str) else study
    attributes = opened.user_attrs
    best = best_trial(opened)
    baseline = attributes.get(BASELINE)
    return StudyResult(
        study=opened.study_name,
        goals=tuple(attributes.get(GOALS, ())),
        metric=attributes.get(METRIC, ""),
        config=attributes.get(CONFIG, {}),
        trials=tuple(_record(trial) for trial in opened.get_trials(deepcopy=False) if RESULT in trial.user_attrs),
        best=_record(best) if best else None,
        pareto=tuple(trial.number for trial in opened.best_trials) if len(opened.directions) > 1 else (),
        baseline=Result(**baseline) if baseline else None,
        counts=counts(opened),
        link=attributes.get(LINK),
        memory=attributes.get(MEMORY, {}),
        training=attributes.get(TRAINING, ""),
        invariant=attributes.get(INVARIANT, 0.0),
        folder=home.folder(opened.study_name),
        optuna_study=opened,
    )


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial that meets the constraints; of several goals the first decides, so it is Pareto-optimal.

    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study()
    >>> study.optimize(lambda trial: (trial.suggest_float("dropout", 0.0, 1.0) - 0.5) ** 2, n_trials=3)
    >>> best = best_trial(study)
    >>> best.value == min(trial.value for trial in study.trials)
    True
    """
    best = None
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if is_feasible(trial) and (best is None or is_better(trial.values, best.values, study.directions)):
            best = trial
    return best


def is_better(values: Sequence[float], others: Sequence[float], directions: Sequence[StudyDirection]) -> bool:
    """Comparison of values with others, goal by goal: true if they beat them.

    >>> losses, accuracies = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
    >>> is_better([0.4, 0.9], [0.4, 0.8], [losses, accuracies]), is_better([0.5, 0.9], [0.4, 0.8], [losses, accuracies])
    (True, False)
    """
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    return [s * v for s, v in zip(signs, values, strict=True)] < [s * v for s, v in zip(signs, others, strict=True)]


def spent(trial_counts: Mapping[str, int]) -> int:
    """Number of trials that count against the budget: all but failed and running ones.

    >>> spent({"complete": 5, "pruned": 8, "diverged": 1, "failed": 2, "running": 4})
    14
    """
    return trial_counts["complete"] + trial_counts["pruned"] + trial_counts["diverged"]


def is_concluded(result: StudyResult) -> bool:
    """True once a study's budget is spent and it was concluded: report, model, and nothing left open.

    >>> study = optuna.create_study(study_name="digits")
    >>> study.set_user_attr(CONFIG, {"budget": {"trials": 4}})
    >>> study.set_user_attr(CONCLUDED, 4)
    >>> is_concluded(load_result(study))
    True
    """
    return bool(result.optuna_study.user_attrs.get(CONCLUDED) == result.config.get("budget", {}).get("trials"))


def is_feasible(trial: FrozenTrial) -> bool:
    """True for a trial that meets the constraints.

    >>> is_feasible(optuna.trial.create_trial(value=0.4))
    True
    """
    return all(value <= 0 for value in trial.constraints.values()) if trial.constraints else True


def counts(study: optuna.Study) -> dict[str, int]:
    """Trials by what became of them: complete, pruned, diverged (these two are Optuna's PRUNED), failed, running.

    >>> study = optuna.create_study()
    >>> study.add_trial(optuna.trial.create_trial(value=0.4))
    >>> study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED))
    >>> counts(study)
    {'complete': 1, 'pruned': 1, 'diverged': 0, 'failed': 0, 'running': 0}
    """
    names = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed", TrialState.RUNNING: "running"}
    tally: Counter[str] = Counter()
    for trial in study.get_trials(deepcopy=False):
        diverged = trial.user_attrs.get(RESULT, {}).get("end") == DIVERGED
        tally["diverged" if diverged else names.get(trial.state, "pruned")] += 1
    return {name: tally[name] for name in ("complete", "pruned", "diverged", "failed", "running")}


def _record(trial: FrozenTrial) -> TrialRecord:
    stored: Mapping[str, Any] = trial.user_attrs[RESULT]
    return TrialRecord(trial.number, trial.state.name, tuple(trial.values or ()), Result(**stored))


def main_key(result: StudyResult) -> str | None:
    """The strength that a study is about: a decay if one is searched, else the first regularizer.

    >>> study = optuna.create_study(study_name="digits")
    >>> tried = Result("finished", 40, {"val_loss": 0.4}, lr=0.01, strengths={"dropout": 0.2, "l2": 0.1}, model={})
    >>> study.add_trial(optuna.trial.create_trial(value=0.4, user_attrs={RESULT: tried.as_dict()}))
    >>> main_key(load_result(study))
    'l2'
    """
    searched = searched_keys(result)
    return next((key for kind in DECAYS for key in searched if split_key(key)[0] == kind), next(iter(searched), None))


def searched_keys(result: StudyResult) -> list[str]:
    """Keys of strengths that the trials have, those first of which there are several values.

    >>> study = optuna.create_study(study_name="digits")
    >>> tried = Result("finished", 40, {"val_loss": 0.4}, lr=0.01, strengths={"dropout": 0.2, "l2": 0.1}, model={})
    >>> study.add_trial(optuna.trial.create_trial(value=0.4, user_attrs={RESULT: tried.as_dict()}))
    >>> searched_keys(load_result(study))
    ['dropout', 'l2']
    """
    values: dict[str, set[float]] = {}
    for trial in result.trials:
        for key, value in trial.result.strengths.items():
            values.setdefault(key, set()).add(value)
    return sorted(values, key=lambda key: len(values[key]) < 2)


def winner(result: StudyResult) -> TrialRecord:
    """The best trial; raises StudyNotFoundError while no trial is complete.

    >>> study = optuna.create_study(study_name="digits")
    >>> tried = Result("finished", 40, {"val_loss": 0.4}, lr=0.01, strengths={"dropout": 0.2, "l2": 0.1}, model={})
    >>> study.add_trial(optuna.trial.create_trial(value=0.4, user_attrs={RESULT: tried.as_dict()}))
    >>> winner(load_result(study)).values
    (0.4,)
    """
    if result.best is None:
        raise StudyNotFoundError(f"study {result.study!r} has no complete trial yet; go on with: wdsearch run FILE")
    return result.best


def settings_of(result: Result) -> dict[str, Any]:
    """A trial's rate, strengths and searched arguments of the network, by key.

    >>> settings_of(Result("finished", 40, {}, lr=0.01, strengths={"l2": 0.1}, model={"width": 64}))
    {'lr': 0.01, 'l2': 0.1, 'model.width': 64}
    """
    model = {f"model.{key}": value for key, value in result.model.items()}
    return {"lr": result.lr} | result.strengths | model
