"""Ray for real, two nodes in a network of their own: workers and nodes are lost, trials are not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.orders import order
from support.postgres import binaries

from wdsearch.launch.engines import LAUNCHERS, LaunchError
from wdsearch.launch.engines.ray import RayOptions

ISOLATED = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--uts", "--kill-child"]


def on_ray(kind: str, folder: Path) -> dict[str, Any]:
    """Counts of `tests/faults/on_ray.py`; skips where it cannot run."""
    pytest.importorskip("ray")
    if binaries() is None:
        pytest.skip("no PostgreSQL is installed")
    if not shutil.which("unshare") or subprocess.run([*ISOLATED, "true"], check=False, capture_output=True).returncode:
        pytest.skip("Ray asks for no login: it runs in a network of its own, which takes root and unshare")
    script = Path(__file__).parents[1] / "faults" / "on_ray.py"
    done = subprocess.run(
        [*ISOLATED, sys.executable, str(script), str(folder), kind],
        check=False,
        capture_output=True,
        text=True,
        timeout=1500,
        env=os.environ | {"PYTHONPATH": str(script.parents[2])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, Any]) -> None:
    """The budget is exact, and nothing is there twice, missing or open."""
    budget = found["budget"]
    assert found["optuna"] == {"COMPLETE": budget}
    assert found["slots_with_two_trials"] == 0
    assert found["baseline"]
    assert len(found["epochs_of_each"]) == 1
    assert found["mlflow"] == {"FINISHED": budget + 2}, "the study's and the baseline's beside the trials'"
    assert found["mlflow_runs_of_trials"] == budget
    assert found["mlflow_doubles"] == 0
    assert found["workers_left"] == 0
    assert found["model"] == 1


def test_two_workers_on_ray_search_a_study(tmp_path: Path) -> None:
    check(on_ray("smoke", tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_workers_and_a_node_are_killed_and_no_trial_is_lost_or_there_twice(tmp_path: Path) -> None:
    found = on_ray("faults", tmp_path)
    assert found["killed_with_the_last"]
    check(found)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_stopped_workers_let_go_of_their_trials_and_the_next_launch_goes_on(tmp_path: Path) -> None:
    found = on_ray("stop", tmp_path)
    assert 0 < found["stopped_after"] < found["budget"]
    assert set(found["released"]) <= {"released"}
    check(found)


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    options = RayOptions(address="http://127.0.0.1:1")
    with pytest.raises(LaunchError, match=r"no Ray cluster answers at http://127\.0\.0\.1:1: start one with"):
        LAUNCHERS["ray"].start(order(tmp_path), options)
    with pytest.raises(LaunchError, match="no Ray cluster answers"):
        LAUNCHERS["ray"].states(["wdsearch-small-1a2b3c4d"], options)


def test_what_the_nodes_bring_along_is_given_with_the_environment(tmp_path: Path) -> None:
    options = RayOptions(cpus=0.5, gpus=0.25, memory_gb=2, home="/scratch/home", runtime_env={"env_vars": {"OWN": "1"}})
    text = LAUNCHERS["ray"].script(order(tmp_path), options)
    assert "small --workers 3 --cpus 0.5 --gpus 0.25 --retries 10 --memory-gb 2.0" in text
    names = ("MLFLOW_TRACKING_URI", "OWN", "RAY_JOB_STOP_WAIT_TIME_S", "WDSEARCH_HOME", "WDSEARCH_STORAGE")
    assert " ".join(f"{name}=..." for name in names) in text
