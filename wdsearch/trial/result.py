"""The result of one trial, and the values and constraints that Optuna judges it by."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Metrics = dict[str, float]
FINISHED, STOPPED_EARLY, PRUNED, DIVERGED = "finished", "stopped early", "pruned", "diverged"
"""Reasons for the end of a trial's training."""
SIDES = ("train", "val", "gap", "objective")
"""Last parts of metrics' names: where a quantity is measured."""


def flat(metrics: Mapping[str, float]) -> Metrics:
    """Metrics under their names in tables and objectives.

    >>> flat({"loss/val": 0.5, "loss/gap": 0.25, "accuracy/gap": 0.125})
    {'val_loss': 0.5, 'gap': 0.25, 'gap_accuracy': 0.125}
    """
    return {flat_name(name): value for name, value in metrics.items()}


def flat_name(name: str) -> str:
    """Name of a metric in an objective; a user-defined one that does not end in a side keeps its name.

    >>> flat_name("loss/val"), flat_name("loss/gap"), flat_name("perplexity"), flat_name("val/loss")
    ('val_loss', 'gap', 'perplexity', 'val/loss')
    """
    quantity, _, side = name.rpartition("/")
    if not quantity or side not in SIDES:
        return name
    return "gap" if name == "loss/gap" else f"{side}_{quantity}"


@dataclass(frozen=True)
class Diagnosis:
    """Effect of λ on one trial, measured on the state by which it is judged.

    `whole` has the numbers of all decayed weights together, `layers` those of each by its name, `histogram` counts the entries
    of all between `edges`.
    """

    whole: dict[str, float]
    layers: dict[str, dict[str, float]]
    histogram: dict[str, list[Any]]

    def as_dict(self) -> dict[str, Any]:
        """Form for files and Optuna's attributes."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """Metrics of a trial, all measured on one state of its weights, and its configuration.

    `metrics` has `train_loss`, `val_loss`, `gap` and the same for the metric; `epochs` is its age in epochs at the end,
    `end` the reason for its end: finished, stopped early, pruned or diverged. `diagnostics` is its Diagnosis as a dict.
    `best_epoch` is the epoch, counted from 1, whose weights early stopping kept; 0 if it is off.
    """

    end: str
    epochs: int
    metrics: Metrics
    lr: float
    strengths: dict[str, float]
    model: dict[str, Any]
    diagnostics: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0

    @property
    def diagnosis(self) -> Diagnosis:
        """Effect of λ; empty if nothing was measured."""
        return Diagnosis(**({"whole": {}, "layers": {}, "histogram": {}} | self.diagnostics))

    @property
    def is_complete(self) -> bool:
        """True if it was trained to its end, so that its values can be compared."""
        return self.end not in (PRUNED, DIVERGED)

    @property
    def is_diverged(self) -> bool:
        """True if its loss was not finite in the end."""
        return self.end == DIVERGED

    def as_dict(self) -> dict[str, Any]:
        """Form for Optuna's attributes (JSON; ∞ stays ∞)."""
        return asdict(self)


def values(result: Mapping[str, float], goals: Sequence[str]) -> list[float]:
    """Values of the goals, in their order. Raises KeyError with the known names for an unknown one.

    >>> values({"val_loss": 0.5, "gap": 0.25}, ["gap", "val_loss"])
    [0.25, 0.5]
    """
    return [_metric(result, goal) for goal in goals]


def violations(result: Mapping[str, float], constraints: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """Excess over each constraint; Optuna takes a value ≤ 0 as met.

    >>> violations({"gap": 0.25}, {"gap": {"max": 0.5, "min": 0.0}})
    {'gap <= 0.5': -0.25, 'gap >= 0': -0.25}
    """
    excesses = {}
    for name, bounds in constraints.items():
        largest, least = bounds.get("max"), bounds.get("min")
        if largest is not None:
            excesses[f"{name} <= {largest:g}"] = _metric(result, name) - largest
        if least is not None:
            excesses[f"{name} >= {least:g}"] = least - _metric(result, name)
    return excesses


def metric_named(result: Mapping[str, float], name: str) -> float | None:
    """Value of a metric, by its name in an objective or the one that a user's module logs; None if there is none.

    >>> metric_named({"val_loss": 0.5}, "loss/val"), metric_named({"val_loss": 0.5}, "accuracy")
    (0.5, None)
    """
    return result.get(name, result.get(flat_name(name)))


def _metric(result: Mapping[str, float], name: str) -> float:
    value = metric_named(result, name)
    if value is None:
        raise KeyError(f"there is no {name!r} to judge a trial by; this study has {', '.join(sorted(result))}")
    return value
