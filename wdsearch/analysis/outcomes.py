"""Records of an explanation: outcomes of trainings on fresh seeds, and the verdicts on the claims; data alone."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wdsearch.storage.attributes import EXPLANATION
from wdsearch.storage.results import StudyResult
from wdsearch.trial.result import DIVERGED, Metrics

ARM = "weight_decay"
"""The part of the design in which decay alone is varied."""
SUPPORTED, CONTRADICTED, NO_EFFECT, UNDETERMINED = "supported", "contradicted", "no_effect", "undetermined"


@dataclass(frozen=True)
class Outcome:
    """One configuration trained with one fresh seed: initial weights, data order and noise.

    `arm` names the part of the design it belongs to (`weight_decay`, `l1`, `dropout`, `lr`), `seed` counts the fresh seeds
    from 0, `end` says why training ended (`diverged` among others). `metrics` are those of the result (`val_loss`, `gap` ...),
    `measures` the network's diagnostics; a diverged one may lack them.
    """

    arm: str
    seed: int
    lr: float
    strengths: dict[str, float]
    model: dict[str, Any]
    end: str
    metrics: Metrics
    measures: dict[str, float]

    def metric(self, name: str) -> float:
        """A metric; NaN if it was not measured, or training diverged, after which the last finite numbers mean nothing."""
        return math.nan if self.end == DIVERGED else self.metrics.get(name, math.nan)


@dataclass(frozen=True)
class Curve:
    """Means over the seeds along one strength, with a 95 % t-interval of each."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Claim:
    """One textbook claim about λ, tested: an effect with its 95 % t-interval, and its verdict, which holds beside all others.

    `key` names the claim, `unit` the unit of the effect.

    `evidence` has the numbers for a sentence about it, `curves` those for its figure, by the name of the quantity.
    `unit` is `share` (of the value without decay), `weights` or `runs` (a share of them), `correlation`, `loss`, or `log`. An
    effect that could not be measured is NaN.

    `reason` is why it is not supported: `opposite`; for no effect `none` (none of a size that matters, `evidence["smallest"]`) or
    `plateau`; for undetermined `mixed`, `unclear` (too wide an interval), `inert` (λ changes the weights too little), `diverged`,
    `edge` (no λ of the grid is too large), `seeds` (too few), `halves` (too few to choose and to judge), `equilibrium` (λ* brings
    no equilibrium), `not_measured`, `no_dropout`.
    """

    key: str
    verdict: str
    effect: float
    low: float
    high: float
    unit: str
    evidence: dict[str, float]
    curves: dict[str, Curve]
    reason: str = ""


@dataclass(frozen=True)
class Explanation:
    """Effects of λ in one study: outcomes from the winner's configuration along λ, and the claims they support or not.

    `decay` is the key that was varied: `weight_decay`, `l2`, or that of a group, in proportion to which the others went; `trial`
    is the winner's number.
    """

    study: str
    trial: int
    epochs: int
    seeds: int
    decay: str
    outcomes: tuple[Outcome, ...]
    claims: tuple[Claim, ...]

    def along(self, quantity: Callable[[Outcome], float | None]) -> dict[float, dict[int, float]]:
        """A quantity by strength of decay and seed, over the outcomes that differ in that strength alone."""
        by_strength: dict[float, dict[int, float]] = {}
        for outcome in self.outcomes:
            value = quantity(outcome)
            if outcome.arm == ARM and self.decay in outcome.strengths and value is not None:
                by_strength.setdefault(outcome.strengths[self.decay], {})[outcome.seed] = value
        return dict(sorted(by_strength.items()))

    def as_dict(self) -> dict[str, Any]:
        """A record for files and Optuna's attributes; JSON has no ∞ and no NaN, so they are texts."""
        return dict(plain(asdict(self)))


def explanation_from(stored: Mapping[str, Any]) -> Explanation:
    """The explanation that `as_dict` recorded, back from JSON.

    >>> explanation = Explanation("digits", 3, 40, 5, "weight_decay", outcomes=(), claims=())
    >>> explanation_from(explanation.as_dict()) == explanation
    True
    """
    outcomes = tuple(_outcome(outcome) for outcome in stored["outcomes"])
    claims = tuple(_claim(claim) for claim in stored["claims"])
    return Explanation(**dict(stored) | {"outcomes": outcomes, "claims": claims})


def _outcome(stored: Mapping[str, Any]) -> Outcome:
    return Outcome(**dict(stored) | {"strengths": _numbers(stored["strengths"])})


def _claim(stored: Mapping[str, Any]) -> Claim:
    if stored["verdict"] == CONTRADICTED and stored["reason"] in ("none", "plateau"):  # as version 0.1 called it
        stored = dict(stored) | {"verdict": NO_EFFECT}
    curves = {name: _curve(points) for name, points in stored["curves"].items()}
    numbers = _numbers({name: stored[name] for name in ("effect", "low", "high")})
    return Claim(**dict(stored) | numbers | {"curves": curves})


def _curve(stored: Mapping[str, Any]) -> Curve:
    return Curve(**{name: tuple(numbers) for name, numbers in stored.items()})


def plain(value: Any) -> Any:
    """A value as JSON can hold it, which has no ∞ and no NaN.

    >>> plain({"timescale": math.inf, "sizes": (1, 2)})
    {'timescale': 'inf', 'sizes': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(stored: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in stored.items()}


def explained_trial(result: StudyResult) -> int | None:
    """The number of the trial that was explained, if any was; another one may have won since."""
    stored = result.optuna_study.user_attrs.get(EXPLANATION)
    return stored.get("trial") if stored else None


def explanation_of(result: StudyResult) -> Explanation | None:
    """The explanation of the best trial, if that one was explained."""
    if result.best is None or explained_trial(result) != result.best.number:
        return None
    return explanation_from(result.optuna_study.user_attrs[EXPLANATION])
