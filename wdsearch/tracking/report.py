"""Writes a study's report and adds it to the study's record."""

from pathlib import Path

from wdsearch.report.texts import Texts
from wdsearch.report.write import FOLDER, Report, write_report
from wdsearch.storage.home import Home
from wdsearch.storage.results import load_result
from wdsearch.tracking import reopen_tracker
from wdsearch.tracking.tracker import Delivery, Tracker


def report(
    study: str,
    home: Home,
    storage: str | None = None,
    language: str = "en",
    output: Path | None = None,
) -> tuple[Report, Delivery | None]:
    """Write a study's report and add it to its records; `output` is a further copy of the page.

    Raises StudyNotFoundError, and LanguageError for a language that there are no texts in. The delivery is None for a study
    that has no records, as one whose records were removed.
    """
    words = Texts(language)
    result = load_result(study, home, storage)
    written = write_report(result, words)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(written.page.read_bytes())
    tracker = reopen_tracker(result, home, storage)
    if tracker is None:
        return written, None
    log_report(tracker, written)
    tracker.start_delivery()
    return written, tracker.finish()


def log_report(tracker: Tracker, written: Report) -> None:
    """Add a report to the study's record."""
    for path in (written.page, *written.pictures):
        tracker.log_artifact(path, FOLDER)
