"""Trial·epochs per second of wdsearch and of what it replaces, side by side in one run.

    python tests/benchmarks/throughput.py [--repeats N] [--trials N] [--quick] [--json FILE]

Competitors take turns in every repeat, and ratios are taken within a repeat, for machines are shared and noisy; medians
over the repeats are shown. wdsearch's wall time is that of `wdsearch.run` from call to return, making its databases,
building data and delivering to MLflow included; the glue's databases are made before its clock starts, and imports count
for nobody. The glue writes one record a metric and epoch, and does not evaluate the training subset.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import competitors
import own
import processors
from competitors import BATCH, Measured, Setting
from rich.console import Console
from rich.table import Table

SPACE = {"lr": (3e-4, 3e-2, True), "weight_decay": (1e-3, 10.0, True), "dropout": (0.0, 0.6, False)}
SETTINGS = (
    Setting("digits", (64, 128, 128, 10), 64, 30, SPACE),
    Setting("mnist1d", (40, 256, 256, 10), 24, 40, SPACE | {"label_smoothing": (0.0, 0.2, False)}, cosine=True),
)
FUSED = 32
PRUNED, UNPRUNED = "wdsearch", "wdsearch unpruned"
GLUE, PAIR, BARE = ("glue, 2 threads", "glue, 1 thread"), "glue, 2 processes", ("bare, 2 threads", "bare, 1 thread")
OWN_STEP, MODELBATCH, FLOOR = "wdsearch, fused", "modelbatch", "matrix products alone"

Repeats = dict[str, list[Measured]]
"""Measurements of each competitor by name, one a repeat."""


class Bench:
    """Two processes for competitors, and a folder for what all of them write."""

    def __init__(self, folder: Path, processes: tuple[Executor, Executor], steps: int) -> None:
        self.folder, self.processes, self.steps = folder, processes, steps
        self._folders = 0

    def competitors(self, setting: Setting) -> dict[str, Callable[[], Measured | None]]:
        """All of a setting's measurements by name."""
        data, few, alone = self._data(setting), setting.few, self.processes[0]
        steps = (FUSED, self.steps)
        return {
            PRUNED: lambda: own.run_search(setting, "halving", self._fresh()),
            UNPRUNED: lambda: own.run_search(setting, "none", self._fresh()),
            GLUE[0]: lambda: self._glue(setting, few, threads=2, processes=1),
            GLUE[1]: lambda: self._glue(setting, few, threads=1, processes=1),
            PAIR: lambda: self._glue(setting, few, threads=1, processes=2),
            BARE[0]: lambda: alone.submit(competitors.bare, setting, data, few, 2).result(),
            BARE[1]: lambda: alone.submit(competitors.bare, setting, data, few, 1).result(),
            OWN_STEP: lambda: own.fused_steps(setting, *steps),
            MODELBATCH: lambda: alone.submit(competitors.modelbatch_steps, setting, data, *steps, 2).result(),
            FLOOR: lambda: alone.submit(competitors.floor_steps, setting, *steps, 2).result(),
        }

    def warm_up(self) -> None:
        """Let every process import all it needs, in a search and in trials that do not count."""
        setting = Setting("digits", (64, 8, 10), 2, 2, SPACE)
        self._data(setting)
        own.run_search(setting, "none", self._fresh())
        self._glue(setting, 1, threads=1, processes=2)

    def alone(self, run: Callable[[], Measured | None]) -> Measured | None:
        """Measure, and see how alone the benchmark was."""
        before = time.monotonic(), processors.all_seconds(), self._own_seconds()
        measured = run()
        after = time.monotonic(), processors.all_seconds(), self._own_seconds()
        wall, everybody, own_share = (late - early for early, late in zip(before, after, strict=True))
        others = (everybody - own_share) / wall / (os.cpu_count() or 1)
        return measured and replace(measured, others=others)

    def _own_seconds(self) -> float:
        beside = [process.submit(processors.own_seconds) for process in self.processes]
        return processors.own_seconds() + sum(one.result() for one in beside)

    def _glue(self, setting: Setting, trials: int, threads: int, processes: int) -> Measured:
        folder, data = self._fresh(), self._data(setting)
        self.processes[0].submit(competitors.open_records, setting, folder).result()
        tasks = (setting, data, folder, trials, threads)
        waiting = [process.submit(competitors.glue, *tasks) for process in self.processes[:processes]]
        shares = [share.result() for share in waiting]
        return Measured(
            trials=sum(share.trials for share in shares),
            work=sum(share.work for share in shares),
            began=min(share.began for share in shares),
            ended=max(share.ended for share in shares),
            val_loss=shares[-1].val_loss,
            baseline_loss=shares[-1].baseline_loss,
        )

    def _data(self, setting: Setting) -> Path:
        path = self.folder / f"{setting.data}.pt"
        if not path.exists():
            own.save_parts(setting, path)
        return path

    def _fresh(self) -> Path:
        self._folders += 1
        folder = self.folder / str(self._folders)
        folder.mkdir()
        return folder


def measure(bench: Bench, settings: Sequence[Setting], repeats: int, say: Callable[[str], None]) -> dict[str, Repeats]:
    """All competitors in turn, as often as there are repeats, forwards and backwards; those not installed are left out."""
    repeats_by_name: dict[str, Repeats] = {setting.data: {} for setting in settings}
    for repeat in range(repeats):
        for setting in settings:
            turns = list(bench.competitors(setting).items())
            for name, run in turns[:: -1 if repeat % 2 else 1]:
                measured = bench.alone(run)
                if measured is None:
                    say(f"{name} is left out: it is not installed (pip install --no-deps modelbatch==0.1.0)")
                    continue
                repeats_by_name[setting.data].setdefault(name, []).append(measured)
                noise = f"{measured.rate:.1f} /s, others took {measured.others:.0%}"
                say(f"repeat {repeat + 1}, {setting.data}, {name}: {measured.seconds:.2f} s, {noise}")
    return repeats_by_name


# -- what is shown -----------------------------------------------------------------------------------------------------


def ratio(repeats_by_name: Repeats, name: str, others: tuple[str, ...]) -> float:
    """Median over the repeats of how many times faster `name` is than the fastest of `others`; NaN if none was measured."""
    known = [repeats_by_name[other] for other in others if other in repeats_by_name]
    pairs = zip(repeats_by_name[name], *known, strict=True)
    return median(mine.rate / max(other.rate for other in rest) for mine, *rest in pairs) if known else float("nan")


def rates(setting: Setting, repeats_by_name: Repeats) -> Table:
    """Whole trainings, one by one or fused; `val_loss` is the mean of those trained to the end."""
    title = f"{setting.data} {'-'.join(map(str, setting.widths))}, {setting.epochs} epochs of batches of {BATCH}"
    columns = ("trials", "trial·epochs/s", "wdsearch is ×", "unpruned ×", "val_loss", "of baseline", "others")
    table = Table("", *columns, title=title)
    for name in (PRUNED, UNPRUNED, *GLUE, PAIR, *BARE):
        middle = _middle(repeats_by_name[name])
        ahead = [f"{ratio(repeats_by_name, mine, (name,)):.2f}" for mine in (PRUNED, UNPRUNED)]
        losses = f"{middle.val_loss:.3f}", f"{middle.baseline_loss:.3f}"
        table.add_row(name, str(middle.trials), f"{middle.rate:.1f}", *ahead, *losses, _others(repeats_by_name[name]))
    return table


def fused(setting: Setting, repeats_by_name: Repeats) -> Table:
    """Fused training steps."""
    title = f"{setting.data}: training steps of {FUSED} trials"
    table = Table("", "ms per trial·step", "wdsearch is ×", "val_loss", "others", title=title)
    for name in (OWN_STEP, MODELBATCH, FLOOR):
        if name in repeats_by_name:
            middle, ahead = _middle(repeats_by_name[name]), ratio(repeats_by_name, OWN_STEP, (name,))
            loss = "" if middle.val_loss is None else f"{middle.val_loss:.3f}"
            table.add_row(name, f"{1e3 / middle.rate:.3f}", f"{ahead:.2f}", loss, _others(repeats_by_name[name]))
    return table


def shares(setting: Setting, repeats_by_name: Repeats) -> Table:
    """Shares of wdsearch's wall time: by part, each without the others, and by phase."""
    columns = (f"{name}, {unit}" for name in (PRUNED, UNPRUNED) for unit in ("s", "%"))
    table = Table("", *columns, title=f"{setting.data}: wall time of wdsearch.run")
    for part in (*own.CALLS, own.REST):
        table.add_row(part, *_seconds(repeats_by_name, part))
    table.add_section()
    table.add_row("all but training steps", *_seconds(repeats_by_name, own.OVERHEAD))
    table.add_section()
    for phase in own.PHASES:
        table.add_row(phase, *_seconds(repeats_by_name, phase))
    inside = [
        f"{median(one.work / one.parts[own.SEARCH] for one in repeats_by_name[name]):.1f}"
        for name in (PRUNED, UNPRUNED)
    ]
    table.add_row("trial·epochs/s within the search", inside[0], "", inside[1], "")
    return table


def aims(repeats_by_name: Repeats) -> Table:
    """Aims on digits."""
    table = Table("aims on digits", "at", "halving", "no pruning")
    for text, aim, others in (("× the glue", "≥ 8", GLUE), ("× its two processes", "≥ 4", (PAIR,))):
        table.add_row(text, aim, *(f"{ratio(repeats_by_name, mine, others):.2f}" for mine in (PRUNED, UNPRUNED)))
    table.add_row("× modelbatch's step", "≥ 2.5", *[f"{ratio(repeats_by_name, OWN_STEP, (MODELBATCH,)):.2f}"] * 2)
    table.add_row("% of wall but training steps", "≤ 15", *_seconds(repeats_by_name, own.OVERHEAD)[1::2])
    return table


def _middle(repeats: list[Measured]) -> Measured:
    """The repeat of median rate."""
    return sorted(repeats, key=lambda one: one.rate)[len(repeats) // 2]


def _others(repeats: list[Measured]) -> str:
    """Share of the processors that other programs took."""
    return f"{median(one.others for one in repeats):.0%}"


def _seconds(repeats_by_name: Repeats, part: str) -> list[str]:
    """Median seconds of a part and its median share of the wall time, for wdsearch with and without pruning."""
    cells = []
    for name in (PRUNED, UNPRUNED):
        cells.append(f"{median(one.parts[part] for one in repeats_by_name[name]):.2f}")
        cells.append(f"{median(100 * one.parts[part] / one.seconds for one in repeats_by_name[name]):.1f}")
    return cells


def run(settings: Sequence[Setting], repeats: int, steps: int, say: Callable[[str], None]) -> dict[str, Repeats]:
    """Start the processes, warm up, measure."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="throughput-")))
        pools = [ProcessPoolExecutor(1, get_context("spawn"), competitors.begin_process) for _ in range(2)]
        first, second = (stack.enter_context(pool) for pool in pools)
        bench = Bench(folder, (first, second), steps)
        bench.warm_up()
        return measure(bench, settings, repeats, say)


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trials", type=int, help="of wdsearch in every setting (64 and 24)")
    parser.add_argument("--quick", action="store_true", help="digits alone, once, 8 trials of 8 epochs: does it run?")
    parser.add_argument("--json", type=Path, help="write all measurements to this file")
    options = parser.parse_args()
    for name in ("MLFLOW_TRACKING_URI", "WDSEARCH_STORAGE"):
        os.environ.pop(name, None)
    competitors.be_quiet()
    repeats, steps, trials = (1, 40, 8) if options.quick else (options.repeats, 60, options.trials)
    settings = [replace(one, trials=trials or one.trials) for one in SETTINGS]
    settings = [replace(settings[0], epochs=8)] if options.quick else settings
    began = time.monotonic()
    by_data = run(settings, repeats, steps, Console(stderr=True).print)
    console = Console(width=max(Console().width, 116))
    for setting in settings:
        console.print(rates(setting, by_data[setting.data]), fused(setting, by_data[setting.data]))
        console.print(shares(setting, by_data[setting.data]))
    console.print(aims(by_data["digits"]))
    console.print(
        f"{repeats} repeats in {time.monotonic() - began:.0f} s; trust no row where others took more than a few %"
    )
    if options.json:
        options.json.write_text(json.dumps(_plain(by_data), indent=1))


def _plain(by_data: Mapping[str, Repeats]) -> Any:
    return {
        data: {name: [asdict(one) | {"rate": one.rate} for one in repeats] for name, repeats in of_data.items()}
        for data, of_data in by_data.items()
    }


if __name__ == "__main__":
    main()
