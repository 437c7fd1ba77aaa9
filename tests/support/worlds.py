"""Worlds in which the truth about λ is planted: the outcomes that an explanation would have in them, drawn at random."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from wdsearch.analysis.design import Schedule, design
from wdsearch.analysis.evidence import Evidence
from wdsearch.analysis.outcomes import Outcome
from wdsearch.study.space import Configuration

WINNER = Configuration(0.01, {"weight_decay": 0.1, "dropout": 0.25, "gradient_clip": math.inf}, {})
PLAN = design(WINNER, Schedule(rate_sum=640.0, largest_factor=1.0), drops=True)
SEEDS = 10
METRICS = ("val_loss", "gap", "gap_accuracy")


class Cell(NamedTuple):
    """The strengths of a training, its rate as a multiple of the winner's, and the seed's number."""

    decay: float
    l1: float
    dropout: float
    speed: float
    seed: int


Value = Callable[[Cell], float]
ORDINARY: dict[str, Value] = {
    "norm": lambda cell: 10 / (1 + 10 * cell.decay),
    "log_complexity": lambda cell: 2.0,
    "nonnormality": lambda cell: 0.04,
    "zeros": lambda cell: 0.2,
    "activation_correlation": lambda cell: 0.3,
    "weight_correlation": lambda cell: 0.2,
    "condition": lambda cell: 50.0,
    "update_spread": lambda cell: 1.0,
    "timescale": lambda cell: 0.2,
    "gradient_norm_late": lambda cell: 10.0,
    "val_loss": lambda cell: 1.0,
    "gap": lambda cell: 0.5,
    "gap_accuracy": lambda cell: 0.1,
}
"""A world in which λ does nothing but shrink the weights; its timescale brings equilibrium."""
NOT_NOISY = ("norm", "timescale")


def evidence(
    changed: Mapping[str, Value],
    noise: Mapping[str, float] | None = None,
    fails: Callable[[Cell], bool] = lambda cell: False,
    seeds: int = SEEDS,
    random: np.random.Generator | None = None,
    draw: Callable[[np.random.Generator], float] = lambda random: float(random.standard_normal()),
) -> Evidence:
    """Outcomes of a world: each value by its function, times a factor of its seed and noise of its own (1 % by default)."""
    world, sizes, random = ORDINARY | dict(changed), noise or {}, random or np.random.default_rng(0)
    offsets = 1 + 0.1 * random.standard_normal(seeds)
    outcomes = []
    for seed in range(seeds):
        for arm, settings in PLAN.cells:
            keys = [settings.strengths.get(key, 0.0) for key in ("weight_decay", "l1", "dropout")]
            cell = Cell(*keys, settings.lr / WINNER.lr, seed)
            values = {}
            for name, value in world.items():
                drawn = 1.0 if name in NOT_NOISY else offsets[seed] * (1 + sizes.get(name, 0.01) * draw(random))
                values[name] = float(value(cell) * drawn)
            metrics = {name: values.pop(name) for name in METRICS}
            end = "diverged" if fails(cell) else "finished"
            outcomes.append(Outcome(arm, seed, settings.lr, settings.strengths, {}, end, metrics, values))
    return Evidence(tuple(outcomes), PLAN.axes)
