"""Addresses of MLflow's stores and pages, and the environment of processes that speak to it; mlflow is not imported."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from wdsearch.storage.database import shown_url
from wdsearch.tracking.serving import PORT

URI = "MLFLOW_TRACKING_URI"
PAGE = "WDSEARCH_MLFLOW_PAGE"
HASTE = "--haste"
"""Option of a delivery that does not step aside for others."""
QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
    "OMP_NUM_THREADS": "1",
}
# the spool is the retry: MLflow's own would hold a delivery up for minutes
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


def local_uri(home: Path) -> str:
    """A SQLite file in the home folder.

    >>> local_uri(Path("/srv/studies"))
    'sqlite:////srv/studies/mlflow.db'
    """
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


def default_uri(home: Path, uri: str | None = None) -> str:
    """MLflow's store: as given, `$MLFLOW_TRACKING_URI`, or a SQLite file in the home folder.

    >>> default_uri(Path("/srv/studies"), "http://mlflow:5000")
    'http://mlflow:5000'
    """
    return uri or os.environ.get(URI) or local_uri(home)


def experiment_link(uri: str, experiment: str, port: int = PORT, view: str | None = None) -> str:
    """The page of a study's runs in its saved view, without login; MLflow's first page without an experiment.

    MLflow opens in another mode without `workflowType`. A server is where `$WDSEARCH_MLFLOW_PAGE` says, for people may reach
    it by another name than workers do.

    >>> experiment_link("sqlite:///mlflow.db", "3")
    'http://127.0.0.1:5000/#/experiments/3/runs?workflowType=machine_learning'
    """
    base = f"http://127.0.0.1:{port}"
    if uri.startswith("http"):
        base = (os.environ.get(PAGE) or shown_uri(uri)).rstrip("/")
    if not experiment:
        return base
    shown = f"&viewStateShareKey={view}" if view else ""
    return f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning{shown}"


def shown_uri(uri: str) -> str:
    """A tracking URI without user and password; that of a database as a storage's is shown.

    >>> shown_uri("https://ada:hunter2@mlflow.example.org/a")
    'https://mlflow.example.org/a'
    """
    if not uri.startswith("http"):
        return shown_url(uri) if "://" in uri else uri
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
