"""An order of workers, as every engine is given it."""

from pathlib import Path

from support.studies import STUDY

from wdsearch.launch.engines import Order
from wdsearch.study.load import load_study

SECRET = "postgresql+psycopg://wdsearch:hunter2@db/studies"


def order(folder: Path, study: str = "small", workers: int = 3) -> Order:
    command = ["python", "-m", "wdsearch.cli", "work", study]
    environment = {
        "WDSEARCH_STORAGE": SECRET,
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "WDSEARCH_HOME": "/srv/home",
    }
    return Order(study, workers, command, environment, folder / "1a2b3c4d", load_study(STUDY | {"study": study}).dump())
