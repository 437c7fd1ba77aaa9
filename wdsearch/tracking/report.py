"""Writes a study's report and shows it on the study's run."""

from pathlib import Path

from wdsearch.report.texts import Texts
from wdsearch.report.write import FOLDER, Report, write_report
from wdsearch.storage.attributes import TOKEN
from wdsearch.storage.home import Home
from wdsearch.storage.results import load_result
from wdsearch.tracking.tracker import Delivery, Tracker


def report(
    study: str,
    home: Home,
    storage: str | None = None,
    language: str = "en",
    output: Path | None = None,
) -> tuple[Report, Delivery | None]:
    """Write a study's report and show it on its run in MLflow; `output` is a further copy of the page.

    Raises StudyNotFoundError, and LanguageError for a language that there are no texts in. The delivery is None for a study
    that has no run in MLflow, as one whose records were removed.
    """
    words = Texts(language)
    result = load_result(study, home, storage)
    written = write_report(result, words)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(written.page.read_bytes())
    token = result.optuna_study.user_attrs.get(TOKEN, "")
    tracker = Tracker.of_study(home.path, study, home.node(storage), token)
    if tracker is None:
        return written, None
    log_report(tracker, written)
    tracker.start_delivery()
    return written, tracker.close()


def log_report(tracker: Tracker, written: Report) -> None:
    """Let MLflow show a report on the study's run."""
    for path in (written.page, *written.pictures):
        tracker.log_artifact(path, FOLDER)
