"""Lines of a search in a terminal: as it is, whatever brackets a user's names and errors have."""

import re

import pytest

from wdsearch.search.progress import SearchProgress

TEXT = "ValueError: no [bold]such[/bold] column [/] in x[0]"


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_notes_and_warnings_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SearchProgress(False)
    progress.note(TEXT)
    progress.warn(TEXT)
    assert said(capsys) == [TEXT, f"warning {TEXT}"]


def test_what_is_said_once_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SearchProgress(False)
    for text in (TEXT, "another", TEXT):
        progress.note_once(text)
    progress.warn_once("twice")
    progress.warn_once("twice")
    assert said(capsys) == [TEXT, "another", "warning twice"]


def test_a_log_has_the_time_of_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SearchProgress("lines")
    progress.warn(TEXT)
    progress.say("drawing [bold]")
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
    warning, phase = said(capsys)
    assert re.fullmatch(stamp + re.escape(f"warning {TEXT}"), warning)
    assert re.fullmatch(stamp + re.escape("drawing [bold]"), phase)
