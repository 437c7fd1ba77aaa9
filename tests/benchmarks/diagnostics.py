"""Cost of diagnostics: training with them against training without, in turns; a diagnosis against a trial's whole training.

    python tests/benchmarks/diagnostics.py [--repeats N] [--trials K] [--epochs E]

Shares of the training time, medians over the repeats: of watching the steps, and of the diagnosis when a trial ends.
"""

import argparse
import time
from statistics import median
from typing import Any

import rich
import torch
from networks import BATCH, NETWORKS, STEPS, trials
from rich.table import Table

from wdsearch.population.fused import FusedCohort

SHOWN = ("mlp 64-64", "mlp 256-256", "mlp 1024-1024", "transformer, sequence", "convnet, images", "resnet")


class Blind:
    """A watch that looks at nothing."""

    def before_step(self, *_: Any) -> None: ...

    def after_step(self, *_: Any) -> None: ...


def timed(cohort: FusedCohort, batch: tuple[torch.Tensor, torch.Tensor], steps: int) -> float:
    """Seconds a step of all trials."""
    began = time.perf_counter()
    for index in range(steps):
        cohort.step(batch, index)
    return (time.perf_counter() - began) / steps


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=32, help="steps an epoch: 32 for 3,200 rows in batches of 100")
    options = parser.parse_args()
    table = Table("network", "ms a trial and step", "watching", "diagnosis, ms a trial", "of its training", "in all")
    for name in SHOWN:
        shape = NETWORKS[name][2]
        batch = (torch.randn(BATCH, *shape), torch.randint(10, (BATCH,)))
        cohort = FusedCohort(trials(name, options.trials), 10_000, torch.device("cpu"), options.trials)
        watch, steps = cohort.watch, 16  # one of them measures its update
        timed(cohort, batch, STEPS)
        shares, seconds, diagnoses = [], [], []
        for _ in range(options.repeats):
            cohort.watch = Blind()  # type: ignore[assignment]
            without = timed(cohort, batch, steps)
            cohort.watch = watch
            shares.append(timed(cohort, batch, steps) / without - 1.0)
            seconds.append(without / options.trials)
            began = time.perf_counter()
            cohort.diagnosis(0, batch, options.epochs)
            diagnoses.append(time.perf_counter() - began)
        training = median(seconds) * options.epochs * options.steps
        share, of_training = median(shares), median(diagnoses) / training
        table.add_row(
            name,
            f"{median(seconds) * 1e3:.2f}",
            f"{share:.1%}",
            f"{median(diagnoses) * 1e3:.1f}",
            f"{of_training:.1%}",
            f"{share + of_training:.1%}",
        )
    table.title = f"{options.trials} trials, batch {BATCH}, {options.epochs} epochs of {options.steps} steps"
    rich.print(table)


if __name__ == "__main__":
    main()
