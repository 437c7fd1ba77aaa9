"""Looks at MLflow's page as a person does: a real server, a real browser."""

import base64
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from playwright.sync_api import BrowserContext, Page, sync_playwright
from support import fabricated
from support.shortened import concluded
from support.studies import yaml_free

import wdsearch
from wdsearch.report.texts import Texts
from wdsearch.report.write import write_report
from wdsearch.storage.home import Home
from wdsearch.study.load import load_study
from wdsearch.tracking import mlflow_client as courier
from wdsearch.tracking.delivery import deliver
from wdsearch.tracking.mlflow_server import ui_command
from wdsearch.tracking.mlflow_tracker import MlflowTracker
from wdsearch.tracking.mlflow_view import LOSSES, saved_views
from wdsearch.tracking.report import report
from wdsearch.tracking.spool import VIEW

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
STUDY = {
    "study": "page",
    "data": "digits",
    "model": {"name": "mlp", "init_args": {"hidden": [16]}},
    "space": {
        "lr": {"low": 1e-3, "high": 1e-2, "log": True},
        "weight_decay": {"timescale": [0.1, 10], "off": True},
        "dropout": {"low": 0.0, "high": 0.5},
    },
    "budget": {"trials": 14, "epochs": 6},
    "search": {"batch": 7},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> wdsearch.StudyResult:
    with concluded():
        return wdsearch.run(STUDY, home=tmp_path_factory.mktemp("page"), progress=False)


@pytest.fixture(scope="module")
def server(done: wdsearch.StudyResult) -> Iterator[str]:
    """An MLflow server over the study's records."""
    home = done.folder.parent.parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, environment = ui_command(home, f"sqlite:///{home / 'mlflow.db'}", port)
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert time.monotonic() < end, (home / "server.log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """One for all tests, which need not each fetch and compile MLflow's page."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt install chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        context = started.new_context(viewport={"width": 2400, "height": 1400})
        context.set_default_timeout(120_000)
        yield context
        started.close()


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: BrowserContext) -> Iterator[Page]:
    """A page as if nobody had been there; of its last state a picture is left in `.pytest_cache/d/screenshots`."""
    opened = browser.new_page()
    yield opened
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("screenshots")
    opened.screenshot(path=folder / f"{re.sub('[^a-zA-Z0-9]+', '-', request.node.name)}.png")
    if opened.url.startswith("http"):
        opened.evaluate("localStorage.clear()")
    opened.close()


def link(done: wdsearch.StudyResult, server: str) -> str:
    assert done.link is not None
    return server + done.link[done.link.index("/#/") :]


def parent_of(done: wdsearch.StudyResult) -> Run:
    """The study's own run."""
    client = MlflowClient(f"sqlite:///{done.folder.parent.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(done.study).experiment_id
    (run,) = client.search_runs([experiment], "tags.`wdsearch.kind` = 'study'")
    return run


def cells(page: Page, column: str) -> list[str]:
    """Cells of a column of the table, from the top."""
    found = page.locator(f'.ag-row [col-id="{column}"]')
    found.first.wait_for()
    rows = found.evaluate_all(
        "all => all.map(cell => [+cell.parentElement.getAttribute('row-index'), cell.innerText.trim()])"
    )
    return [text for _, text in sorted(rows)]


def drawn(page: Page, charts: int) -> list[dict[str, Any]]:
    """Titles and traces of the page's charts, as plotly has them."""
    page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot').length >= {charts}")
    page.wait_for_timeout(3000)
    code = """plots => plots.map(plot => ({
        x: plot.layout.xaxis && plot.layout.xaxis.title && plot.layout.xaxis.title.text,
        y: plot.layout.yaxis && plot.layout.yaxis.title && plot.layout.yaxis.title.text,
        traces: plot.data.map(t => ({type: t.type, points: (t.x || []).length, run: t.uuid, of: t.metricKey})),
    }))"""
    found = page.locator(".js-plotly-plot").evaluate_all(code)
    assert isinstance(found, list)
    return found


def test_the_link_opens_on_lambda_loss_gap_and_state_of_every_trial(
    done: wdsearch.StudyResult, server: str, page: Page
) -> None:
    page.goto(link(done, server))
    losses = [float(text.rstrip("…")) for text in cells(page, "metrics.`val_loss`")]
    assert len(losses) == 15, "every trial, and the baseline"
    assert losses == sorted(losses)
    gaps = [float(text.rstrip("…")) for text in cells(page, "metrics.`gap`")]
    assert all(math.isfinite(gap) for gap in gaps)
    assert done.best is not None
    best = done.best.result
    first = next(row for row, loss in enumerate(losses) if loss == pytest.approx(best.metrics["val_loss"], abs=1e-3))
    assert gaps[first] == pytest.approx(best.metrics["gap"], abs=1e-3)
    decays = [float(text.rstrip("…")) for text in cells(page, "params.`weight_decay`")]
    assert decays[first] == pytest.approx(best.strengths["weight_decay"], rel=1e-2, abs=1e-9)
    states = cells(page, "tags.`wdsearch.state`")
    assert set(states) <= {"COMPLETE", "PRUNED"}
    shown = page.locator(".ag-header-cell").evaluate_all(
        "all => all.sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x).map(c => c.getAttribute('col-id'))"
    )
    wanted = ["params.`weight_decay`", "metrics.`val_loss`", "metrics.`gap`", "tags.`wdsearch.state`"]
    assert [column for column in shown if column in wanted] == wanted


def test_the_charts_of_the_view_are_drawn(done: wdsearch.StudyResult, server: str, page: Page) -> None:
    page.goto(f"{link(done, server)}&compareRunsMode=CHART")
    charts = drawn(page, 3)
    decaying = sum(trial.result.strengths["weight_decay"] > 0 for trial in done.trials)
    scatters = {chart["y"]: chart for chart in charts if chart["traces"][0]["type"].startswith("scatter")}
    for quantity in ("gap", "val_loss"):
        assert scatters[quantity]["x"] == "log10_weight_decay"
        assert sum(trace["points"] for trace in scatters[quantity]["traces"]) == decaying
    assert any(trace["type"] == "contour" for chart in charts for trace in chart["traces"])
    page.get_by_text("page: λ and gap").first.wait_for()


@pytest.mark.slow
def test_the_losses_of_the_ten_best_are_one_chart(done: wdsearch.StudyResult, server: str, page: Page) -> None:
    page.goto(link(done, server).replace(VIEW, LOSSES) + "&compareRunsMode=CHART")
    losses = drawn(page, 3)[0]
    lines = {(trace["run"], trace["of"]) for trace in losses["traces"] if trace["points"] > 1}
    assert {of for _, of in lines} == {"loss/val", "loss/train"}
    assert len(lines) == 2 * 10, "training and validation of each"


def test_the_description_answers_first_and_holds_the_study(done: wdsearch.StudyResult, server: str, page: Page) -> None:
    client, parent = MlflowClient(f"sqlite:///{done.folder.parent.parent / 'mlflow.db'}"), parent_of(done)
    experiment = parent.info.experiment_id
    text = parent.data.tags["mlflow.note.content"]
    assert done.best is not None
    assert text.startswith(
        f"Trial **{done.best.number}** is the best: val_loss **{done.best.values[0]:.4g}** at a gap of "
    )
    assert text.count("| trial ") == min(5, done.counts["complete"])
    assert load_study(yaml.safe_load(text.partition("```yaml")[2].partition("```")[0])).dump() == done.config
    page.goto(f"{server}/#/experiments/{experiment}/runs/{parent.info.run_id}")
    page.get_by_text("is the best").wait_for()
    assert page.locator("table").filter(has_text="baseline").count() == 1, "Markdown, rendered"
    trials = client.search_runs([experiment], "tags.`wdsearch.kind` = 'trial'")
    (best,) = (run for run in trials if run.info.run_name == f"trial-{done.best.number}")
    settings = yaml.safe_load(best.data.tags["mlflow.note.content"].partition("```yaml")[2].partition("```")[0])
    assert settings == {"lr": done.best.result.lr} | done.best.result.strengths


def test_the_report_renders_inline_with_all_its_figures_and_verdicts(
    done: wdsearch.StudyResult, server: str, page: Page
) -> None:
    fabricated.explain(done, fabricated.explanation(done.study))
    home = Home(done.folder.parent.parent)
    written, delivery = report(done.study, home)
    assert delivery is not None
    assert delivery.undelivered == 0
    run, complaints = parent_of(done), []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/report/report.html")
    inside = page.frame_locator("iframe")
    inside.get_by_text("The textbook's claims, tested here").wait_for()
    inside.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert inside.locator(".js-plotly-plot").count() == len(written.pictures)
    assert inside.locator(".verdict").all_inner_texts() == ["supported here", "supported here", "undetermined here"]
    assert inside.locator("#figure-gap .scatterlayer .point").count() == 2 * (len(done.trials) + 1)
    assert inside.locator("#figure-gap").get_by_text("λ.1se = 1").count() == 1
    assert not [text for text in complaints if "plotly" in text.lower()]
    page.goto("about:blank")  # MLflow does not look at its address again
    page.goto(f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/plots/optuna.html")
    inside.locator("#optuna-history .main-svg").first.wait_for()


@pytest.mark.parametrize(
    ("width", "language"),
    [
        (390, "en"),
        pytest.param(390, "zh", marks=pytest.mark.slow),
        pytest.param(1200, "en", marks=pytest.mark.slow),
        (1200, "zh"),
    ],
)
def test_the_report_fits_a_phone_as_well_as_a_desk(
    done: wdsearch.StudyResult, page: Page, width: int, language: str
) -> None:
    fabricated.explain(done, fabricated.explanation(done.study))
    written = write_report(done, Texts(language))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(written.page.as_uri())
    page.locator("#figure-gap .main-svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing to scroll to sideways"
    widths = page.locator(".js-plotly-plot").evaluate_all("plots => plots.map(p => p.getBoundingClientRect().right)")
    assert len(widths) == len(written.pictures)
    assert max(widths) <= width
    cut = page.locator("#comparison .wide").evaluate("table => table.scrollWidth - table.clientWidth")
    assert cut <= 0, "winner and baseline stand side by side"
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_trials_run_has_its_picture_and_its_layers(done: wdsearch.StudyResult) -> None:
    client = MlflowClient(f"sqlite:///{done.folder.parent.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("page").experiment_id
    for run in client.search_runs([experiment], "tags.`wdsearch.kind` = 'trial'"):
        assert {"trial.png", "diagnostics.json"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
        assert run.data.metrics["diagnosis/norm"] > 0
    assert done.best is not None
    (best,) = client.search_runs([experiment], f"tags.`wdsearch.key` = 'trial-{done.best.number}'")
    layers = json.loads(Path(client.download_artifacts(best.info.run_id, "diagnostics.json")).read_text())["layers"]
    assert layers == done.best.result.diagnosis.layers


def test_a_view_fits_into_its_tag_and_names_what_the_study_searches() -> None:
    many = {f"model.argument{number}": {"low": 0, "high": 9} for number in range(200)}
    config = load_study(yaml_free() | {"model": lambda **_: None, "space": many | {"l2": {"low": 0, "high": 1}}})
    for view in saved_views(config, "accuracy", 1).values():
        assert len(view) < 8000, "where MLflow would cut it"
        state = json.loads(zlib.decompress(base64.b64decode(json.loads(view)["state"].removeprefix("deflate;"))))
        assert {"params.`l2`", "params.`model.argument199`", "metrics.`gap`"} <= set(state["selectedColumns"])
        assert state["orderByKey"] == "metrics.`val_loss`"


def test_an_mlflow_whose_page_is_another_gets_no_view_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "VIEWED", ("9.9",))
    idle = [sys.executable, "-c", ""]
    monkeypatch.setattr(
        MlflowTracker, "_deliver_beside", lambda self: subprocess.Popen(idle)
    )  # delivered in this process
    tracker = MlflowTracker(tmp_path, "other")
    tracker.start_study({}, {}, {}, config=load_study(yaml_free()), metric="accuracy")
    tracker.end_study({}, {})
    tracker.stop_writing()
    deliver(tmp_path / "spool" / "other.db")
    told = tracker.finish()
    assert told.link is not None
    assert "viewStateShareKey" not in told.link
    assert told.note is not None
    assert "may keep views of its page in another way than 9.9" in told.note
