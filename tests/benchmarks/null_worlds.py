"""Error rate and power of the verdicts of `wdsearch explain`, in simulated worlds.

    python tests/benchmarks/null_worlds.py [--worlds N] [--seeds N]

In a null world λ shrinks the weights and does nothing else: any direction that is found is false. Shown is the share of worlds
with a false direction in any claim, and with "no effect" said of any. In a world with effects they are as large, beside their
noise, as those that `wdsearch explain` measures on mnist1d: shown is the share of worlds in which each claim is supported.
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

from wdsearch.analysis.claims import claims_of
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
"""Noise of the quantities as a share of their size; others have 1 %, as losses do on mnist1d."""


def null_world(number: int, draw: Draw, failing: float, seeds: int) -> list[str]:
    """Verdicts in a world without effects, of which a share of the trainings fails."""
    random = np.random.default_rng(number)
    world = evidence({}, NOISE, lambda _: bool(random.random() < failing), seeds, random, draw)
    return [claim.verdict for claim in claims_of(world)]


def on(off: float, with_decay: float) -> Value:
    """One value without decay, another with it, half of the way at weaker ones."""
    return lambda cell: off + (with_decay - off) * min(1.0, cell.decay / 0.1) ** 0.25 if cell.decay else off


def _valley(cell: Cell) -> float:
    decayed = 0.9 + 0.03 * np.log10(cell.decay / 0.1) ** 2 if cell.decay else 1.0
    return float(decayed - 0.03 * (cell.dropout > 0))


EFFECTS: dict[str, Value] = {
    "log_complexity": on(2.0, 1.5),
    "nonnormality": on(0.06, 0.03),
    "zeros": lambda cell: 0.6 if cell.l1 else 0.2,
    "activation_correlation": on(0.3, 0.27),
    "gap": on(0.5, 0.35),
    "val_loss": _valley,
    "update_spread": on(1.0, 0.7),
    "gradient_norm_late": on(10.0, 6.0),
}


def world_with_effects(number: int, seeds: int) -> dict[str, str]:
    """Verdicts by claim in a world with effects in every claim."""
    random = np.random.default_rng(number)
    return {claim.key: claim.verdict for claim in claims_of(evidence(EFFECTS, NOISE, seeds=seeds, random=random))}


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
    powers = Table("claim", "supported where it is true")
    for key in found[0]:
        powers.add_row(key, f"{np.mean([world[key] == SUPPORTED for world in found]):.0%}")
    console.print(powers)


if __name__ == "__main__":
    main()
