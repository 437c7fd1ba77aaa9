"""Error rate and power of the verdicts of `wdsearch explain`, in simulated worlds.

    python tests/benchmarks/null_worlds.py [--worlds N] [--seeds N]

In a null world λ shrinks the weights and does nothing else: any direction that is found is false. Shown is the share of worlds
with a false direction in any claim, and with "no effect" said of any. The effects of the other worlds, and their noise, are those
that `wdsearch explain mnist1d --seeds 7` measured on the best trial of `studies/mnist1d.yaml` (two of them against the claim);
update balance, which its network has no norm layers for, is planted. Shown is the share of worlds in which each claim gets the
verdict that is true.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.worlds import Cell, Value, evidence

from wdsearch.analysis.claims import CLAIMS, claims_of
from wdsearch.analysis.outcomes import CONTRADICTED, NO_EFFECT, SUPPORTED

Draw = Callable[[np.random.Generator], float]
DRAWS: dict[str, Draw] = {
    "normal": lambda random: float(random.standard_normal()),
    "t₃": lambda random: float(random.standard_t(3)),
    "exponential": lambda random: float(random.standard_exponential() - 1.0),
}
NOISE = dict.fromkeys(
    ("zeros", "nonnormality", "log_complexity", "gradient_norm_late", "gap", "gap_accuracy", "update_spread"), 0.1
)
"""Noise in null worlds, as a share of the quantities; others have 1 %. What is tested does not depend on its size."""


def null_world(number: int, draw: Draw, failing: float, seeds: int) -> list[str]:
    """Verdicts in a world without effects, of which a share of the trainings fails."""
    random = np.random.default_rng(number)
    world = evidence({}, NOISE, lambda _: bool(random.random() < failing), seeds, random, draw)
    return [claim.verdict for claim in claims_of(world)]


def on(off: float, with_decay: float) -> Value:
    """One value without decay, another with λ*, and half of the way at weaker ones."""
    return lambda cell: off + (with_decay - off) * min(1.0, cell.decay / 0.1) ** 0.25 if cell.decay else off


def _valley(cell: Cell) -> float:
    decayed = 0.855 + 0.1 * np.log10(cell.decay / 0.1) ** 2 if cell.decay else 0.929
    return float(min(decayed, 1.8) - 0.029 * (cell.dropout > 0))


EFFECTS: dict[str, Value] = {
    "log_complexity": on(5.11, 3.65),
    "nonnormality": on(0.053, 0.162),
    "zeros": lambda cell: 0.45 + 0.52 * (float(np.log10(cell.l1)) + 6.0) / 5.0 if cell.l1 else 0.0,
    "condition": on(53.0, 127.0),
    "gap": on(0.763, 0.610),
    "gap_accuracy": on(0.308, 0.288),
    "val_loss": _valley,
    "update_spread": on(1.0, 0.7),
}
MEASURED_NOISE = {
    "log_complexity": 0.016,
    "nonnormality": 0.11,
    "activation_correlation": 0.015,
    "weight_correlation": 0.025,
    "condition": 0.27,
    "gradient_norm_late": 0.076,
    "val_loss": 0.026,
    "gap": 0.034,
    "gap_accuracy": 0.042,
    "update_spread": 0.1,
}
TRUE = dict.fromkeys(CLAIMS, SUPPORTED) | dict.fromkeys(("bell", "collinearity"), CONTRADICTED)


def world_with_effects(number: int, seeds: int) -> dict[str, str]:
    """Verdicts by claim in a world with effects in every claim; at high rates most trainings without decay fail."""
    random = np.random.default_rng(number)

    def fails(cell: Cell) -> bool:
        return bool(cell.speed >= 9.99 and random.random() < (0.1 if cell.decay else 0.8))

    world = evidence(EFFECTS, MEASURED_NOISE, fails, seeds, random)
    return {claim.key: claim.verdict for claim in claims_of(world)}


def main() -> None:
    """Simulate and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=400, help="null worlds of each kind")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    console = Console()
    table = Table("noise", "failing", "false direction in any claim", "“no effect” of any claim")
    for name, draw, failing in [*((name, draw, 0.0) for name, draw in DRAWS.items()), ("normal", DRAWS["normal"], 0.1)]:
        worlds = [
            null_world(number, draw, failing, options.seeds)
            for number in track(range(options.worlds), name, console=console, transient=True)
        ]
        false = np.mean([any(verdict in (SUPPORTED, CONTRADICTED) for verdict in world) for world in worlds])
        none = np.mean([NO_EFFECT in world for world in worlds])
        table.add_row(name, f"{failing:.0%}", f"{false:.1%}", f"{none:.1%}")
    console.print(table)
    found = [world_with_effects(number, options.seeds) for number in range(options.worlds // 4)]
    powers = Table("claim", "truth", "found")
    for key, truth in TRUE.items():
        powers.add_row(key, truth, f"{np.mean([world[key] == truth for world in found]):.0%}")
    console.print(powers)


if __name__ == "__main__":
    main()
