"""Fixtures of all tests. It is imported by pytest's own process too, which runs none: what takes seconds is imported late."""

import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several tests run at once, and their threads would wait for each other

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background ignore it, and what they start

import pytest
from beartype.claw import beartype_package
from jaxtyping import install_import_hook
from support import shapes

# every annotated function is checked at each call; an int passes for a float
beartype_package("wdsearch", conf=shapes.CONF)
# shapes of tensors too, where there are any; and where annotations are texts, which may name nothing
TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "wdsearch"
shaped = [path for path in PACKAGE.rglob("*.py") if re.search("from jaxtyping|from __future__", path.read_text())]
modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in shaped]
install_import_hook(modules, "support.shapes.checked")

LONGEST = (
    "search/test_worker",
    "cli/test_app",
    "tracking/test_mlflow_tracker",
    "launch/test_workers",
    "regularizers/test_regularizers",
    "launch/test_scheduler",
    "tracking/test_mlflow_view",
    "launch/test_ray",
    "test_plugins",
    "population/test_population",
    "models/test_models",
    "launch/test_slurm",
    "search/test_explain",
    "search/test_conclude",
    "search/test_run",
    "tracking/test_contract",
    "analysis/test_trend",
    "storage/test_home",
    "storage/test_earlier_versions",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first: otherwise one of them ends alone."""
    order = {TESTS / f"{name}.py": position for position, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(autouse=True, scope="module")
def _shapes() -> None:
    shapes.check_again()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path) -> Iterator[None]:
    """Every test has its own folder for studies, and leaves no other to the next."""
    places = ("WDSEARCH_HOME", "WDSEARCH_STORAGE", "MLFLOW_TRACKING_URI")
    for name in places:
        os.environ.pop(name, None)
    os.environ["WDSEARCH_HOME"] = str(tmp_path / "wdsearch")
    yield
    for name in places:  # mlflow sets its own, and leaves it
        os.environ.pop(name, None)


@pytest.fixture(autouse=True, scope="session")
def _no_conclusions() -> Iterator[None]:
    """Report, plots, model and trials' pictures take seconds: they are made where a test is about them (`concluded`)."""
    from support.shortened import conclude_nothing

    with pytest.MonkeyPatch.context() as patch:
        conclude_nothing(patch.setattr)
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """An MLflow store without experiments: making one takes MLflow seconds, so all workers of a run share it."""
    from wdsearch.tracking.mlflow_store import make_store

    own = tmp_path_factory.getbasetemp()
    path = (own if worker_id == "master" else own.parent) / "mlflow.db"
    (path.parent / "spool").mkdir(exist_ok=True)
    make_store(f"sqlite:///{path}")
    return path


@pytest.fixture(autouse=True, scope="session")
def _delivered_here(empty_store: Path) -> Iterator[None]:
    """Records of a study are delivered to MLflow by the tests' own process, which has imported mlflow already.

    Where a test is about the process that does it, `_delivered_beside`.
    """
    from support.shortened import EMPTY_STORE, deliver_here

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EMPTY_STORE, str(empty_store))
        deliver_here(patch.setattr)
        yield


@pytest.fixture
def _delivered_beside() -> Iterator[None]:
    from support.shortened import delivered_beside

    with delivered_beside():
        yield


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    import torch

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
