"""Studies and explanations that nobody trained, in Optuna's storage as real ones lie there."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from wdsearch.analysis.outcomes import SUPPORTED, UNDETERMINED, Claim, Curve, Explanation, Outcome
from wdsearch.storage.attributes import BASELINE, CONFIG, EXPLANATION, GOALS, METRIC, RESULT
from wdsearch.storage.home import Home
from wdsearch.storage.results import StudyResult, load_result, winner

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1e-1, log=True),
    "weight_decay": FloatDistribution(1e-3, 10.0, log=True),
    "dropout": FloatDistribution(0.0, 0.6),
}
DIAGNOSTICS = {"whole": {"norm": 12.0, "shrinkage": 0.4, "timescale": 2.0}, "layers": {}, "histogram": {}}
Changes = Callable[[int, dict[str, Any]], dict[str, Any]]


def fabricate(
    home: Home,
    trials: int = 40,
    goals: Sequence[str] = ("val_loss",),
    metric: str = "accuracy",
    space: Mapping[str, BaseDistribution] = SPACE,
    baseline: Mapping[str, float] | None = None,
    change: Changes = lambda number, result: result,
    states: Callable[[int], TrialState] = lambda number: TrialState.PRUNED if number % 3 else TrialState.COMPLETE,
    name: str = "fabricated",
    stored: bool = False,
) -> StudyResult:
    """A study of so many trials; `change` makes of a trial's result what a test needs. It lies in a file if it is `stored`."""
    storage = home.open() if stored else None
    study = optuna.create_study(storage=storage, study_name=name, directions=["minimize"] * len(goals))
    config = {"study": name, "space": {key: {} for key in space}, "budget": {"trials": trials, "epochs": 40}, "seed": 0}
    plain = _result({"lr": 1e-3, "weight_decay": 0.0, "dropout": 0.0}, 0.0, metric)
    plain["metrics"] = dict(plain["metrics"] if baseline is None else baseline)
    for key, value in ((GOALS, list(goals)), (METRIC, metric), (CONFIG, config), (BASELINE, plain)):
        study.set_user_attr(key, value)
    rng = random.Random(0)
    study.add_trials([_trial(number, rng, goals, metric, space, change, states(number)) for number in range(trials)])
    return load_result(study, home)


def _trial(
    number: int,
    rng: random.Random,
    goals: Sequence[str],
    metric: str,
    space: Mapping[str, BaseDistribution],
    change: Changes,
    state: TrialState,
) -> FrozenTrial:
    params = {key: _drawn(rng, distribution) for key, distribution in space.items()}
    result = change(number, _result(params, rng.gauss(0.0, 0.02), metric))
    result["end"] = "pruned" if state == TrialState.PRUNED else "finished"
    values = [result["metrics"].get(goal, 1.0) for goal in goals] if state == TrialState.COMPLETE else None
    return create_trial(
        state=state, params=params, distributions=dict(space), values=values, user_attrs={RESULT: result}
    )


def _drawn(rng: random.Random, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    assert isinstance(distribution, FloatDistribution)
    if distribution.log:
        return math.exp(rng.uniform(math.log(distribution.low), math.log(distribution.high)))
    return rng.uniform(distribution.low, distribution.high)


def _result(params: Mapping[str, Any], noise: float, metric: str) -> dict[str, Any]:
    decay = next((value for key, value in params.items() if key.startswith("weight_decay")), 0.1) or 1e-4
    loss = 0.9 + 0.05 * (math.log10(decay) + 1) ** 2 + noise
    gap = 0.5 - 0.1 * math.log10(decay) + noise
    metrics = {"val_loss": loss, "train_loss": loss - gap, "gap": gap}
    metrics |= {f"val_{metric}": 0.7, f"train_{metric}": 0.9, f"gap_{metric}": 0.2} if metric else {}
    strengths = {key: value for key, value in params.items() if key != "lr" and not key.startswith("model.")}
    model = {key.removeprefix("model."): value for key, value in params.items() if key.startswith("model.")}
    return {"end": "finished", "epochs": 40, "metrics": metrics, "lr": params.get("lr", 1e-3)} | {
        "strengths": strengths,
        "model": model,
        "diagnostics": DIAGNOSTICS,
    }


GRID = (0.0, 0.01, 0.1, 1.0)


def explanation(study: str = "fabricated", seeds: int = 5, decay: str = "weight_decay") -> Explanation:
    """The best λ is 0.1; 1.0 is within a standard error of it, for the seeds disagree."""
    losses = {0.0: (1.3, 1.2), 0.01: (1.1, 1.0), 0.1: (0.8, 0.9), 1.0: (0.9, 0.81)}
    outcomes = [_outcome(decay, x, losses[x][seed % 2], seed) for x in GRID for seed in range(seeds)]
    grid = [(x, rate) for x in (0.0, 0.1) for rate in (0.0, 0.3)]
    outcomes += [_outcome(decay, x, 1.0 - x + rate, seed, rate, "dropout") for x, rate in grid for seed in range(seeds)]
    return Explanation(study, 0, 40, seeds, decay, tuple(outcomes), claims())


def _outcome(decay: str, x: float, loss: float, seed: int, rate: float = 0.2, arm: str = "weight_decay") -> Outcome:
    metrics = {"val_loss": loss, "train_loss": loss - 0.3, "gap": 0.3}
    measures = {"norm": 10.0 / (1.0 + x)}
    return Outcome(arm, seed, 0.01, {decay: x, "dropout": rate}, {}, "finished", metrics, measures)


def claims() -> tuple[Claim, ...]:
    """One supported, and one that could not be measured."""
    curve = Curve(GRID, (4.0, 3.0, 2.0, 1.0), (3.9, 2.9, 1.9, 0.9), (4.1, 3.1, 2.1, 1.1))
    evidence = {"reference": 0.1, "seeds": 5.0}
    found = {"gap": curve, "train_loss": curve, "val_loss": curve}
    lost = float("nan")
    return (
        Claim("gap", SUPPORTED, -0.11, -0.14, -0.09, "loss", evidence, found),
        Claim("complexity", SUPPORTED, -0.43, -0.46, -0.4, "share", evidence, {"norm": curve}),
        Claim("gradients", UNDETERMINED, lost, lost, lost, "share", evidence, {}, "not_measured"),
    )


def explain(result: StudyResult, told: Explanation) -> None:
    """Store an explanation where the report looks for it."""
    result.optuna_study.set_user_attr(EXPLANATION, replace(told, trial=winner(result).number).as_dict())
