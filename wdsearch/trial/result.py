"""From the result of one trial to what Optuna is told."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Metrics = dict[str, float]
FINISHED, STOPPED_EARLY, PRUNED, DIVERGED = "finished", "stopped early", "pruned", "diverged"
"""Why the training of a trial ends."""


def flat(metrics: Mapping[str, float]) -> Metrics:
    """`loss/val` → `val_loss`, `loss/gap` → `gap`, `accuracy/gap` → `gap_accuracy`: names for tables and objectives."""
    return {flat_name(name): value for name, value in metrics.items()}


def flat_name(name: str) -> str:
    """What an objective calls a metric; one of a user's own without sides keeps its name."""
    quantity, _, side = name.partition("/")
    return "gap" if name == "loss/gap" else f"{side}_{quantity}" if side else name


@dataclass(frozen=True)
class Diagnosis:
    """What λ did to one trial, measured on the state by which it is judged.

    `whole` has the numbers of all decayed weights together, `layers` those of each by its name, `histogram` counts the entries
    of all between `edges`.
    """

    whole: dict[str, float]
    layers: dict[str, dict[str, float]]
    histogram: dict[str, list[Any]]

    def as_dict(self) -> dict[str, Any]:
        """For files and Optuna's attributes."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """What a trial is judged by, all from one state of its weights, and how it was configured.

    `metrics` has `train_loss`, `val_loss`, `gap` and the same for the metric; `epochs` is its age in epochs at the end,
    `end` why it ended: finished, stopped early, pruned or diverged. `diagnostics` is its Diagnosis as a dict.
    """

    end: str
    epochs: int
    metrics: Metrics
    lr: float
    strengths: dict[str, float]
    model: dict[str, Any]
    diagnostics: dict[str, Any] = field(default_factory=dict)

    @property
    def diagnosis(self) -> Diagnosis:
        """What λ did; empty where nothing was measured."""
        return Diagnosis(**({"whole": {}, "layers": {}, "histogram": {}} | self.diagnostics))

    @property
    def is_complete(self) -> bool:
        """Whether it was trained to its end, and so has values to be compared by."""
        return self.end not in (PRUNED, DIVERGED)

    @property
    def is_diverged(self) -> bool:
        """Whether its loss was no number in the end."""
        return self.end == DIVERGED

    def as_dict(self) -> dict[str, Any]:
        """For Optuna's attributes (JSON; ∞ stays ∞)."""
        return asdict(self)


def values(result: Mapping[str, float], goals: Sequence[str]) -> list[float]:
    """The values of the goals, in their order; KeyError with the known names for an unknown one."""
    return [_named(result, goal) for goal in goals]


def violations(result: Mapping[str, float], constraints: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """By how much each constraint is exceeded; Optuna takes a value ≤ 0 as met."""
    found = {}
    for name, bounds in constraints.items():
        largest, least = bounds.get("max"), bounds.get("min")
        if largest is not None:
            found[f"{name} <= {largest:g}"] = _named(result, name) - largest
        if least is not None:
            found[f"{name} >= {least:g}"] = least - _named(result, name)
    return found


def _named(result: Mapping[str, float], name: str) -> float:
    if name not in result:
        raise KeyError(f"there is no {name!r} to judge a trial by; this study has {', '.join(sorted(result))}")
    return result[name]
