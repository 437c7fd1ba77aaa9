"""MLflow's stores: that in a home folder, made whole, quick to write to, fit to be copied; a study's page in any."""

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from wdsearch.files import locked
from wdsearch.tracking.mlflow_address import PATIENCE
from wdsearch.tracking.spool import VIEW

VIEW_TAG = "mlflow.sharedViewState."


def make_store(uri: str) -> None:
    """Make a local store, whole or not at all.

    MLflow takes seconds for it, and what two processes make at once, or one that dies at it, cannot be used ever after.
    """
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    folder = path.parent / "spool" / ".store"  # no study is named like this
    with locked(folder.with_suffix(".lock")):
        if not path.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            MlflowClient(tracking_uri=f"sqlite:///{folder / path.name}").search_experiments(max_results=1)
            (folder / path.name).replace(path)
            folder.rmdir()


def write_ahead(uri: str) -> None:
    """One sync per commit instead of several, and readers of our own store do not block the delivery.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_ahead(f"sqlite:///{folder}/mlflow.db")
    ...     database = sqlite3.connect(f"{folder}/mlflow.db")
    ...     mode = database.execute("PRAGMA journal_mode").fetchone()
    ...     database.close()
    >>> mode
    ('wal',)
    """
    database = sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=60.0)
    database.execute("PRAGMA journal_mode=WAL")
    database.close()


def write_through(uri: str) -> None:
    """All that was written, into the database file itself: people copy it without the log beside it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_ahead(f"sqlite:///{folder}/mlflow.db")
    ...     write_through(f"sqlite:///{folder}/mlflow.db")
    ...     [path.name for path in Path(folder).iterdir()]
    ['mlflow.db']
    """
    with suppress(sqlite3.Error):
        database = sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=1.0)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()


def find_page(uri: str, study: str) -> tuple[str, str | None]:
    """A study's experiment in an MLflow and the view that is saved with it; empty if there is none, or MLflow is out of reach."""
    os.environ.update(PATIENCE | os.environ)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        experiment = MlflowClient(tracking_uri=uri).get_experiment_by_name(study)
    except MlflowException:
        return "", None
    if experiment is None:
        return "", None
    return experiment.experiment_id, VIEW if VIEW_TAG + VIEW in experiment.tags else None
