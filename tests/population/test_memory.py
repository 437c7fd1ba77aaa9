"""Memory of a population: the estimate is near the measured peak, and a population that does not fit is shrunk."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.studies import searched, told

import wdsearch.search.session
from wdsearch.population.memory import Footprint, footprint, is_out_of_memory
from wdsearch.trial.module import RegularizedModule

WIDE = """
import sys
sys.path.insert(0, {tests!r})
import resource
import torch
import wdsearch
from wdsearch.population.memory import Memory
torch.set_num_threads(1)
study = {{
    "study": "wide", "data": {{"name": "mnist1d", "init_args": {{"batch_size": {rows}}}}},
    "model": {{"name": "mlp", "init_args": {{"hidden": [{width}, {width}]}}}},
    "space": {{"weight_decay": {{"low": 0.0, "high": 1.0}}, "dropout": {{"low": 0.0, "high": 0.5}}{more}}},
    "budget": {{"trials": 32, "epochs": 2}}, "search": {{"batch": 16, "sampler": "random", "pruner": "none"}},
    "trainer": {{"accelerator": "cpu"}},
}}
if {limit}:
    import mlflow, matplotlib.pyplot, wdsearch.search.run
    torch.nn.Linear(64, 64)(torch.zeros(2, 64)).sum().backward()
    virtual = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + {limit}, -1))
result = wdsearch.run(study, home={home!r}, progress=False)
print(result.counts["complete"], result.memory["estimated"], result.memory["peak"], result.best.values[0])
print("trained", result.training, file=sys.stderr)
"""


def run_wide(home: Path, width: int = 256, rows: int = 3200, limit: int = 0, more: str = "") -> tuple[list[str], str]:
    """Run a study of a wide network in a process of its own; what it printed."""
    code = WIDE.format(
        tests=str(Path(__file__).parents[1]), home=str(home), width=width, rows=rows, limit=limit, more=more
    )
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}  # each arena reserves 64 MiB of addresses
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak as Linux counts it")
@pytest.mark.parametrize("more", ["", ', "ema": {"low": 0.0, "high": 0.9}'], ids=["nothing", "averages"])
def test_the_estimate_is_near_the_measured_peak(tmp_path: Path, more: str) -> None:
    (complete, estimated, peak, _), _ = run_wide(tmp_path, width=512, rows=2000, more=more)
    assert complete == "32"
    assert 0.5 < int(estimated) / int(peak) < 2.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.slow
def test_out_of_memory_the_population_is_shrunk_and_nothing_else_changes(tmp_path: Path) -> None:
    free, said = run_wide(tmp_path / "free")
    assert "fused, up to 33 trials in a call" in said
    limited, errors = run_wide(tmp_path / "limited", limit=int(0.6 * int(free[2])))
    assert "out of memory with 33 trials in a call: going on with 16" in errors
    trained = errors[errors.index("trained on") :]
    assert "fused, up to 33 trials in a call" not in trained, "what is said at the end is how it was in the end"
    assert re.search(r"fused, up to (16|8|4|2) trials in a call|fused, up to 1 ", trained)
    assert (limited[0], limited[-1]) == (free[0], free[-1])


def test_a_population_that_will_not_fit_is_shrunk_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = {"budget": {"trials": 6, "epochs": 2}}
    expected = told(searched(tmp_path / "free", **budget))
    monkeypatch.setattr(wdsearch.search.session, "available", lambda device: 90 * 2**20)
    assert told(searched(tmp_path / "short", **budget)) == expected
    assert "9 trials in training, 9 in a call, need about" in " ".join(capsys.readouterr().err.split())


def test_as_many_are_fused_as_fit() -> None:
    small = Footprint(per_trial=10 * 2**20, per_fused=100 * 2**20)
    assert small.max_fused(trials=33, limit=33, available=2**34) == 33
    assert small.max_fused(trials=33, limit=33, available=2**30) == 5
    assert small.max_fused(trials=33, limit=33, available=2**20) == 1
    assert small.total(33, 5) - small.total(33, 4) == 100 * 2**20


def test_what_regularizers_remember_is_counted() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(6, 50), torch.nn.BatchNorm1d(50), torch.nn.Linear(50, 3))
    batch = torch.randn(8, 6), torch.zeros(8, dtype=torch.int64)
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    with_average, without = (
        footprint(RegularizedModule(copy.deepcopy(network), strengths), batch, stops_early=True)
        for strengths in ({"weight_decay": 0.1, "ema": 0.9}, {"weight_decay": 0.1, "l2": 0.1})
    )
    assert with_average.per_trial - without.per_trial == weights
    assert with_average.per_fused <= without.per_fused


def test_errors_of_memory_are_told_from_others() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
