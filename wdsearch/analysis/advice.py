"""Advice from a study's diagnostics: symptoms that a user can act on, from its records alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from wdsearch.groups import TIMESCALE, split_key
from wdsearch.storage.results import StudyResult

INERT = 0.05
"""Shrinkage below which λ does nothing."""
EDGE = 0.05
"""Share of a range that counts as its edge."""
NORMED = 0.5
"""Share of decayed weights before norm layers from which on that is reported."""
DIVERGING = 0.1
"""Share of diverged trials from which on that is reported."""


@dataclass(frozen=True)
class Flag:
    """One thing to act on: `key` names it (`inert`, `saturated`, `edge`, `norm_layers`, `diverging`), `values` say how much."""

    key: str
    values: dict[str, float | str]


def flags(result: StudyResult) -> tuple[Flag, ...]:
    """Symptoms to act on, the most telling first; none while no trial is complete."""
    return (*_decay(result), *_edges(result), *_norm_layers(result), *_diverging(result)) if result.best else ()


def _decay(result: StudyResult) -> Iterator[Flag]:
    """The winner's decay shrinks next to nothing, or forgets within an epoch."""
    assert result.best is not None
    diagnosis = result.best.result.diagnosis.whole
    shrinkage, timescale = diagnosis.get("shrinkage", 0.0), diagnosis.get("timescale", math.inf)
    if 0.0 < shrinkage < INERT:
        yield Flag("inert", {"shrinkage": shrinkage, "timescale": timescale})
    epochs = diagnosis.get("timescale_epochs", math.inf)
    if epochs < 1.0:
        yield Flag("saturated", {"timescale_epochs": epochs})


def _edges(result: StudyResult) -> Iterator[Flag]:
    """Searched values of the winner at the end of their range, where the end is not "off" or the end of what is allowed."""
    assert result.best is not None
    trial = result.optuna_study.get_trials(deepcopy=False)[result.best.number]
    for name, distribution in trial.distributions.items():
        key = name.removesuffix(TIMESCALE)
        entry, end = _entry(result, key), _end(trial.params[name], distribution)
        if end is None or _goes_on_to_off(key, entry, end, name.endswith(TIMESCALE)):
            continue
        low, high = entry.get("timescale") or (entry.get("low"), entry.get("high"))
        if low is not None and high is not None and low <= trial.params[name] <= high:  # beyond lies "off"
            values: dict[str, float | str] = {
                "key": name,
                "value": float(trial.params[name]),
                "low": float(low),
                "high": float(high),
            }
            yield Flag("edge", values)


def _entry(result: StudyResult, key: str) -> dict[str, Any]:
    """A key's dimension as the study file has it."""
    name, group = split_key(key)
    entry = result.config.get("space", {}).get(name, {})
    entry = entry if isinstance(entry, dict) else {}
    named = {group_entry.get("name"): group_entry for group_entry in entry.get("groups") or ()}
    return named.get(group, {}) if group else entry


def _end(value: Any, distribution: BaseDistribution) -> str | None:
    """`low` or `high` if a value lies at that end of what was searched; None in between, or of a choice."""
    if not isinstance(distribution, FloatDistribution | IntDistribution) or distribution.single():
        return None
    low, high = float(distribution.low), float(distribution.high)
    scale = math.log if distribution.log else float
    share = (scale(float(value)) - scale(low)) / (scale(high) - scale(low))
    return "low" if share < EDGE else "high" if share > 1.0 - EDGE else None


def _goes_on_to_off(key: str, entry: dict[str, Any], end: str, timescale: bool) -> bool:
    """True where beyond that end lies no decay at all, which was searched as well, or nothing: a rate of 0."""
    vanishing = "high" if timescale else "low"
    nothing = end == "low" and entry.get("low") == 0
    return nothing or (bool(entry.get("off")) and end == vanishing)


def _norm_layers(result: StudyResult) -> Iterator[Flag]:
    """Much of what decays has its scale taken out by norm layers."""
    if result.invariant > NORMED:
        yield Flag("norm_layers", {"share": result.invariant})


def _diverging(result: StudyResult) -> Iterator[Flag]:
    """Many trials diverged."""
    diverged, trials = result.counts["diverged"], len(result.trials)
    if trials and diverged / trials > DIVERGING:
        yield Flag("diverging", {"count": float(diverged), "trials": float(trials)})
