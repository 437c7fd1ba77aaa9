"""The sweeps of a family side by side, read from their storage alone: λ*, gap and validation result, and whether λ* moved."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from wdsearch.analysis.one_standard_error import Losses
from wdsearch.analysis.outcomes import explanation_of, plain
from wdsearch.analysis.strength_range import Range, Trial, plausible
from wdsearch.errors import StudyNotFoundError
from wdsearch.groups import split_key
from wdsearch.storage.attributes import CONFIG, FAMILY, FIRED, IDENTITY, RATE_SUM, RESULT
from wdsearch.storage.home import Home
from wdsearch.storage.results import StudyResult, is_feasible, load_result, main_key, spent

MOVED, STEADY, UNDETERMINED = "moved", "steady", "undetermined"


@dataclass(frozen=True)
class Sweep:
    """One sweep: its best trial, and the range of λ* that its own trials, or fresh seeds, allow.

    `decay` is the strength as it is compared: of decoupled decay 1/timescale, what decay does over a training whatever its rate
    and length, else the strength itself; `range` is in this unit. Values that the sweep does not have yet are None, as its
    `range` with too few complete trials. `data` is a digest.
    """

    study: str
    fired: str
    finished: bool
    spent: int
    budget: int
    key: str
    strength: float | None
    decay: float | None
    in_timescales: bool
    lr: float | None
    gap: float | None
    value: float | None
    baseline: float | None
    range: Range | None
    data: str


@dataclass(frozen=True)
class Trend:
    """A family's sweeps, the earliest first. `verdict` compares the last finished one with the finished one before.

    `reason` says why it is undetermined: `one` (fewer than two are finished), `key` (another strength is searched), `unit` (one
    is of an earlier version, which did not record timescales), `few` (too few complete trials).
    """

    family: str
    goal: str
    sweeps: tuple[Sweep, ...]
    verdict: str
    reason: str = ""

    @property
    def compared(self) -> tuple[Sweep, Sweep] | None:
        """The last two finished sweeps."""
        finished = [sweep for sweep in self.sweeps if sweep.finished]
        return (finished[-2], finished[-1]) if len(finished) > 1 else None

    @property
    def key(self) -> str:
        """The strength that the last sweep is judged by."""
        return self.sweeps[-1].key if self.sweeps else ""

    def as_dict(self) -> dict[str, Any]:
        """A record for JSON, which has no ∞."""
        return dict(plain(asdict(self)))


def trend(family: str, home: Home, storage: str | None = None) -> Trend:
    """A family's sweeps; raises StudyNotFoundError with the families that there are."""
    opened = home.open(storage)
    family_trend = trend_in(opened, family, home)
    if not family_trend.sweeps:
        attributes = [study.user_attrs for study in opened.get_all_studies()]
        known = sorted({str(each[FAMILY]) for each in attributes if FAMILY in each})
        text = f"there are no sweeps of {family!r}; there are sweeps of: {', '.join(known) or 'nothing'}"
        raise StudyNotFoundError(f"{text}; begin some with: wdsearch schedule FILE")
    return family_trend


def trend_in(storage: BaseStorage, family: str, home: Home) -> Trend:
    """A family's sweeps in a storage that is open."""
    results = [load_result(study, home) for study in sweeps_of(family, storage)]
    sweeps = tuple(_sweep(result) for result in results)
    goal = next((result.goals[0] for result in reversed(results) if result.goals), "val_loss")
    undetermined = Trend(family, goal, sweeps, UNDETERMINED, "one")
    if undetermined.compared is None:
        return undetermined
    earlier, last = undetermined.compared
    if earlier.key != last.key:
        return Trend(family, goal, sweeps, UNDETERMINED, "key")
    if earlier.in_timescales != last.in_timescales:
        return Trend(family, goal, sweeps, UNDETERMINED, "unit")
    if earlier.range is None or last.range is None:
        return Trend(family, goal, sweeps, UNDETERMINED, "few")
    return Trend(family, goal, sweeps, STEADY if last.range.meets(earlier.range) else MOVED)


def sweeps_of(family: str, storage: BaseStorage) -> list[optuna.Study]:
    """A family's sweeps, the earliest first."""
    of_family = [study for study in storage.get_all_studies() if study.user_attrs.get(FAMILY) == family]
    of_family.sort(key=lambda study: (str(study.user_attrs.get(FIRED, "")), study.study_name))
    return [optuna.load_study(study_name=study.study_name, storage=storage) for study in of_family]


def is_finished(result: StudyResult) -> bool:
    """True once a sweep's budget is spent."""
    budget = result.config.get("budget", {}).get("trials", 0)
    return bool(budget) and spent(result.counts) >= budget


def _sweep(result: StudyResult) -> Sweep:
    study, best = result.optuna_study, result.best
    attributes = study.user_attrs
    key = main_key(result) or ""
    in_timescales = split_key(key)[0] == "weight_decay" and RATE_SUM in attributes
    scale = attributes[RATE_SUM] if in_timescales else None
    trials = [
        Trial(_decay(trial.user_attrs[RESULT], key, scale), _loss(result, trial.values[0]), _position(trial))
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if key in trial.user_attrs.get(RESULT, {}).get("strengths", {}) and is_feasible(trial)
    ]
    return Sweep(
        study=result.study,
        fired=str(attributes.get(FIRED, "")),
        finished=is_finished(result),
        spent=spent(result.counts),
        budget=attributes.get(CONFIG, {}).get("budget", {}).get("trials", 0),
        key=key,
        strength=best.result.strengths.get(key) if best else None,
        decay=_decay(asdict(best.result), key, scale) if best and key in best.result.strengths else None,
        in_timescales=in_timescales,
        lr=best.result.lr if best else None,
        gap=best.result.metrics.get("gap") if best else None,
        value=best.values[0] if best else None,
        baseline=result.baseline.metrics.get(result.goals[0]) if result.baseline and result.goals else None,
        range=plausible(trials, _path(result, key, scale)),
        data=str(attributes.get(IDENTITY, {}).get("data (digest)", "")),
    )


def _decay(trained: Mapping[str, Any], key: str, scale: float | None) -> float:
    """A trial's strength as sweeps are compared by it: 1/timescale by the sum of the schedule's factors, if that is given."""
    strength = float(trained["strengths"][key])
    return strength if scale is None else strength * trained["lr"] * scale


def _loss(result: StudyResult, value: float) -> float:
    return -value if result.optuna_study.directions[0] == StudyDirection.MAXIMIZE else value


def _position(trial: FrozenTrial) -> tuple[float, ...]:
    """Each parameter from 0 to 1, as it is searched; different choices are 1 apart."""
    position: list[float] = []
    for name, distribution in sorted(trial.distributions.items()):
        value = trial.params[name]
        if isinstance(distribution, CategoricalDistribution):
            position += [float(value == choice) / math.sqrt(2.0) for choice in distribution.choices]
        elif isinstance(distribution, FloatDistribution | IntDistribution) and distribution.low < distribution.high:
            ends = [distribution.low, value, distribution.high]
            low, middle, high = map(math.log, ends) if distribution.log else ends
            position.append((middle - low) / (high - low))
    return tuple(position)


def _path(result: StudyResult, key: str, scale: float | None) -> Losses | None:
    """Losses along λ alone on fresh seeds, if the sweep was explained."""
    explanation = explanation_of(result)
    if explanation is None or explanation.decay != key or not result.goals:
        return None
    losses = explanation.along(lambda outcome: _loss(result, outcome.metric(result.goals[0])))
    factor = 1.0 if scale is None or result.best is None else result.best.result.lr * scale
    return {strength * factor: by_seed for strength, by_seed in losses.items()}
