"""Base of the errors that wdsearch raises for people, and those that several packages raise."""


class WdsearchError(Exception):
    """Base of the errors that end a command with their message and no traceback; `hint` says what to do next, below it.

    >>> print(StudyNotFoundError("there is no study 'a'", hint="begin it with: wdsearch run FILE"))
    there is no study 'a'
    begin it with: wdsearch run FILE
    """

    exit_code = 2
    """Exit code of the command: 2 for a wrong call, 1 for a failed job."""
    hint = ""

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.hint

    def __str__(self) -> str:
        return "\n".join(filter(None, (super().__str__(), self.hint)))


class DataError(WdsearchError):
    """Data from which nothing can be learned, or not as it is asked for."""


class BuildError(WdsearchError):
    """Data or a network that cannot be built as the study says."""


class StudyNotFoundError(WdsearchError):
    """A study that the storage does not hold."""


class StoppedError(Exception):
    """Request to end this process (Ctrl-C, SIGTERM): a signal to whoever trains, not an error to be shown."""
