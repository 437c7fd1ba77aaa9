"""A study of a thousand trials in MLflow's page and in the report: delivered for real, looked at in a real browser.

    python tests/benchmarks/thousand.py [--trials N] [--epochs E]

Seconds from opening the printed link to the first rows of the table, in a browser that was never there; seconds and memory of
`wdsearch report`.
"""

import argparse
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import rich
from playwright.sync_api import sync_playwright
from support.fabricated import fabricate

from wdsearch.storage.home import Home
from wdsearch.storage.results import StudyResult
from wdsearch.study.load import load_study
from wdsearch.tracking.delivery import deliver
from wdsearch.tracking.mlflow_server import ui_command
from wdsearch.tracking.mlflow_tracker import MlflowTracker
from wdsearch.tracking.spool import VIEW

PORT = 5077
STUDY = {
    "study": "fabricated",
    "data": "digits",
    "model": "mlp",
    "space": {
        "lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "weight_decay": {"low": 1e-3, "high": 10.0, "log": True},
        "dropout": {"low": 0.0, "high": 0.6},
    },
    "budget": {"trials": 1000, "epochs": 40},
}


def track(result: StudyResult, home: Home, epochs: int) -> str:
    """Tell MLflow of every trial as a search does; the study's link."""
    config = load_study(STUDY)
    tracker = MlflowTracker(home.path, result.study)
    tracker.start_study({"epochs": epochs}, {}, {}, config=config, metric=result.metric)
    noise = random.Random(0)
    for trial in result.trials:
        key, found = f"trial-{trial.number}", trial.result
        params = {"lr": found.lr} | found.strengths
        params |= {f"log10_{name}": math.log10(value) for name, value in params.items() if value > 0}
        tracker.start_trial(key, params, {"wdsearch.kind": "trial", "wdsearch.study": result.study}, {})
        for epoch in range(1, epochs + 1):
            loss = 2.0 / epoch + noise.random() / 10
            tracker.log(key, epoch, {"loss/train": loss, "loss/val": loss + 0.1, "loss/gap": 0.1})
        tracker.end_trial(key, trial.state, found.metrics, {}, epochs, found.diagnostics)
        tracker.flush()
    tracker.end_study({}, {})
    tracker.stop_writing()
    assert deliver(tracker.spool.path) == 0
    return tracker.finish().link or ""


def first_rows(link: str) -> float:
    """Seconds until the browser shows rows with a value of λ."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        began = time.perf_counter()
        page.goto(link)
        page.locator('.ag-row [col-id="params.`weight_decay`"]').first.wait_for(timeout=120_000)
        seconds = time.perf_counter() - began
        browser.close()
    return seconds


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(folder)
        result = fabricate(home, options.trials, stored=True)
        began = time.perf_counter()
        link = track(result, home, options.epochs)
        rich.print(
            f"{options.trials} trials of {options.epochs} epochs, delivered in {time.perf_counter() - began:.0f} s"
        )
        command, environment = ui_command(home.path, f"sqlite:///{home.path / 'mlflow.db'}", PORT)
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            seconds = [first_rows(link.replace(":5000", f":{PORT}")) for _ in range(3)]
            assert f"viewStateShareKey={VIEW}" in link
            rich.print("first rows after " + ", ".join(f"{one:.1f}" for one in seconds) + " s")
        finally:
            server.terminate()
            server.wait()
        began = time.perf_counter()
        arguments = ["report", result.study, "--home", str(home.path)]
        subprocess.run([sys.executable, "-m", "wdsearch.cli", *arguments], check=True)
        seconds_of_report = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        rich.print(f"report: {seconds_of_report:.1f} s, at most {peak:.0f} MiB (of any process started here)")


if __name__ == "__main__":
    main()
