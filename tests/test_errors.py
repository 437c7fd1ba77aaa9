"""Errors for people have one base, which says how a command ends; everything else keeps its traceback."""

import inspect
import pickle
import pkgutil
from importlib import import_module

import pytest
import typer

import wdsearch
from wdsearch.cli.app import _clear_errors
from wdsearch.errors import BuildError, DataError, StudyNotFoundError, WdsearchError
from wdsearch.search.interruption import InterruptedStudyError
from wdsearch.storage.database import NetworkFileSystemError
from wdsearch.study.file import Fault, StudyFileError

SIGNALS = {
    "StoppedError": "asks a training to end; whoever asked catches it",
    "AbandonedError": "ends a thread that nobody waits for",
}
"""Exceptions that no person sees, and why they are no WdsearchError."""
FAILED_JOBS = {
    "BatchError",
    "ExportError",
    "InterruptedStudyError",
    "LaunchError",
    "NetworkFileSystemError",
    "NoWeightsError",
    "NotLoggedError",
    "PortError",
    "StorageError",
    "TrainingError",
    "TrialsFailedError",
    "UndeliveredError",
}
"""Errors after which a command ends with 1, or above: the call was right. Of all others it ends with 2."""


def _errors() -> dict[str, type[Exception]]:
    """All exception classes that the package defines, by name."""
    modules = [
        import_module(found.name)
        for found in pkgutil.walk_packages(wdsearch.__path__, "wdsearch.")
        if found.name != "wdsearch.cli.__main__"
    ]
    return {
        name: kind
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == module.__name__
    }


ERRORS = _errors()
SHOWN = sorted(name for name in ERRORS if name not in SIGNALS and name != "WdsearchError")


def _ending(error: Exception, capsys: pytest.CaptureFixture[str], trains: bool = False) -> tuple[int, str]:
    """The exit code of a command that an error ends, and what it says."""
    with pytest.raises(typer.Exit) as exit_, _clear_errors(trains):
        raise error
    return exit_.value.exit_code, capsys.readouterr().err


def _example(name: str) -> WdsearchError:
    given = {"StudyFileError": ([Fault("a.yaml", 3, "is wrong")],), "InterruptedStudyError": ("is wrong", 15)}
    error = ERRORS[name](*given.get(name, ("is wrong",)))
    assert isinstance(error, WdsearchError), f"{name} is no WdsearchError, and no signal with a reason"
    return error


def test_there_are_errors() -> None:
    assert len(SHOWN) >= 20
    assert ERRORS.keys() >= SIGNALS.keys()


@pytest.mark.parametrize("name", SHOWN)
def test_an_error_ends_a_command_with_its_code_and_message(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = _example(name)
    code, text = _ending(error, capsys)
    assert code == {"InterruptedStudyError": 128 + 15}.get(name, 1 if name in FAILED_JOBS else 2)
    assert "is wrong" in text
    assert "Traceback" not in text


def test_the_hint_stands_below_the_message_and_survives_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    error = StudyNotFoundError("there is no study 'a'", hint="begin it with: wdsearch run FILE")
    expected = "there is no study 'a'\nbegin it with: wdsearch run FILE"
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == expected
    assert _ending(error, capsys) == (2, f"{expected}\n")
    assert str(WdsearchError("as it is")) == "as it is"


def test_what_cannot_be_built_may_be_there_when_a_training_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in (BuildError, DataError):
        assert _ending(kind("a download failed"), capsys)[0] == 2
        assert _ending(kind("a download failed"), capsys, trains=True)[0] == 1


def test_errors_remain_what_callers_may_catch_them_as() -> None:
    assert issubclass(StudyFileError, ValueError)
    assert issubclass(NetworkFileSystemError, OSError)
    assert InterruptedStudyError("stopped", 2).signal == 2


def test_an_error_of_another_kind_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), _clear_errors():
        _ = 1 / 0
