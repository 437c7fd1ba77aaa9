"""Errors that many raise or pass on; others stand beside what raises them."""


class DataError(Exception):
    """Data from which nothing can be learned, or not as it is asked for."""


class StoppedError(Exception):
    """Somebody asked this process to end (Ctrl-C, SIGTERM)."""


class BuildError(Exception):
    """Data or a network that cannot be built as the study says."""
