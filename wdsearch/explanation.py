"""What training configurations again on fresh seeds showed, and what it says about the claims: data alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wdsearch.objective import Metrics

SUPPORTED, CONTRADICTED, UNDETERMINED = "supported", "contradicted", "undetermined"


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


@dataclass(frozen=True)
class Curve:
    """Means over the seeds along one strength, with a 95 % bootstrap interval of each."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Claim:
    """One textbook claim about λ, tested: an effect with its 95 % bootstrap interval, and the verdict that follows from it.

    `key` names the claim, `unit` what the effect is measured in; `evidence` has the numbers that a sentence about it
    tells, `curves` what a figure of it draws, by the name of the quantity.
    """

    key: str
    verdict: str
    effect: float
    low: float
    high: float
    unit: str
    evidence: dict[str, float]
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Explanation:
    """What λ did in one study: outcomes from the winner's configuration along λ, and the claims they support or not."""

    study: str
    epochs: int
    seeds: int
    decay: str
    outcomes: tuple[Outcome, ...]
    claims: tuple[Claim, ...]

    def as_dict(self) -> dict[str, Any]:
        """For files and Optuna's attributes."""
        return asdict(self)


def explanation_from(stored: Mapping[str, Any]) -> Explanation:
    """What `as_dict` gave, back from JSON."""
    outcomes = tuple(Outcome(**one) for one in stored["outcomes"])
    claims = tuple(_claim(one) for one in stored["claims"])
    return Explanation(**dict(stored) | {"outcomes": outcomes, "claims": claims})


def _claim(stored: Mapping[str, Any]) -> Claim:
    curves = {name: Curve(**{key: tuple(v) for key, v in one.items()}) for name, one in stored["curves"].items()}
    return Claim(**dict(stored) | {"curves": curves})
