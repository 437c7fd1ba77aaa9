"""Each shipped network, fused against one trial after another: a whole optimizer step of all trials, in turns.

    python tests/benchmarks/networks.py [--repeats N] [--trials K] [--device cpu]

Milliseconds a trial and step, medians over the repeats; the ratio is taken within a repeat. `wdsearch run` trains in the way
that the last column names.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import rich
import torch
from rich.table import Table
from torch import Tensor

from wdsearch.models import MODELS
from wdsearch.population.cohort import Cohort
from wdsearch.population.fused import FusedCohort
from wdsearch.population.fusibility import slow_when_fused
from wdsearch.population.looped import LoopedCohort
from wdsearch.trial.module import RegularizedModule

STRENGTHS = {"weight_decay": 0.1, "dropout": 0.2, "label_smoothing": 0.1}
NETWORKS: Mapping[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "mlp 64-64": ("mlp", {"inputs": 64, "hidden": (64, 64)}, (64,)),
    "mlp 256-256": ("mlp", {"inputs": 64, "hidden": (256, 256)}, (64,)),
    "mlp 1024-1024": ("mlp", {"inputs": 64, "hidden": (1024, 1024)}, (64,)),
    "mlp 256-256, batch norm": ("mlp", {"inputs": 64, "hidden": (256, 256), "norm": "batch"}, (64,)),
    "residual_mlp": ("residual_mlp", {"inputs": 64}, (64,)),
    "transformer, sequence": ("transformer", {"shape": (1, 40), "patch": 4}, (40,)),
    "transformer, table": ("transformer", {"shape": (16,)}, (16,)),
    "convnet, images": ("convnet", {"shape": (1, 8, 8), "channels": (16, 32)}, (64,)),
    "convnet, sequence": ("convnet", {"shape": (1, 40), "channels": (16, 32)}, (40,)),
    "convnet, 28×28": ("convnet", {"shape": (1, 28, 28), "channels": (16, 32)}, (784,)),
    "resnet": ("resnet", {"shape": (1, 8, 8), "width": 8, "blocks": (1, 1)}, (64,)),
}
BATCH, STEPS = 128, 3


def trials(name: str, count: int) -> dict[int, RegularizedModule]:
    """Trials of one network, alike."""
    model, options, _ = NETWORKS[name]
    found = {}
    for number in range(count):
        torch.manual_seed(0)
        found[number] = RegularizedModule(MODELS[model](outputs=10, **options), STRENGTHS, 1e-3)
    return found


def timed(cohort: Cohort, batch: tuple[Tensor, Tensor], count: int, wait: Callable[[], None]) -> float:
    """Milliseconds a trial and step."""
    began = time.perf_counter()
    for index in range(STEPS):
        cohort.step(batch, index)
    wait()
    return (time.perf_counter() - began) / STEPS / count * 1e3


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--trials", type=int, default=33)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    table = Table(
        "network", "fused, ms", "one by one, ms", "fused is faster by", "run trains", title=str(options.trials)
    )
    for name, (_, _, shape) in NETWORKS.items():
        batch = (torch.randn(BATCH, *shape, device=device), torch.randint(10, (BATCH,), device=device))
        fused = FusedCohort(trials(name, options.trials), 1000, device, options.trials)
        looped = LoopedCohort(trials(name, options.trials), 1000, device)
        for cohort in (fused, looped):
            timed(cohort, batch, options.trials, wait)
        pairs = [
            (timed(fused, batch, options.trials, wait), timed(looped, batch, options.trials, wait))
            for _ in range(options.repeats)
        ]
        way = "one by one" if slow_when_fused(trials(name, 1)[0], batch, BATCH, device) else "fused"
        ratio = median(alone / together for together, alone in pairs)
        together, alone = (median(times) for times in zip(*pairs, strict=True))
        table.add_row(name, f"{together:.2f}", f"{alone:.2f}", f"{ratio:.2f}×", way)
    table.title = f"{options.trials} trials, batch {BATCH}, {options.repeats} repeats, medians, {device}"
    rich.print(table)


if __name__ == "__main__":
    main()
