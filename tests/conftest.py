"""What several test files share: quiet Trainers, training alone, training fused."""

import logging
import math
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several tests run at once, and their threads would wait for each other

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background ignore it, and what they start

import lightning as L
import pytest
import shapes
import torch
from beartype.claw import beartype_package
from jaxtyping import install_import_hook

# every annotated function is checked at each call; an int passes for a float
beartype_package("wdsearch", conf=shapes.CONF)
# shapes of tensors too, where there are any; and where annotations are texts, which may name nothing
PACKAGE = Path(__file__).parent.parent / "wdsearch"
shaped = [path for path in PACKAGE.rglob("*.py") if re.search("from jaxtyping|from __future__", path.read_text())]
modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in shaped]
install_import_hook(modules, "shapes.checked")

from processes import DELIVERY, EMPTY_STORE, deliver_here

from wdsearch import conclusion
from wdsearch.cohort import TrialEpoch
from wdsearch.module import RegularizedModule
from wdsearch.plots import TrialPicture
from wdsearch.population import Population
from wdsearch.stores import make_store
from wdsearch.tracking import Tracker

LONGEST = (
    "work",
    "storage",
    "cli",
    "page",
    "tracking",
    "conclusion",
    "own_data",
    "launching",
    "slurm",
    "begin",
    "explain",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first: otherwise one of them ends alone."""
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


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


PARTS = {name: (conclusion, name) for name in ("_report", "_optunas_plots", "_model")} | {
    "draw": (TrialPicture, "draw")
}
CONCLUSION = {name: getattr(*place) for name, place in PARTS.items()}


@pytest.fixture(autouse=True, scope="session")
def _no_conclusions() -> Iterator[None]:
    """Report, plots, model and trials' pictures take seconds: they are made where a test is about them (`concluded`)."""
    with pytest.MonkeyPatch.context() as patch:
        for name, (owner, _) in PARTS.items():
            patch.setattr(owner, name, lambda *_: None)
        yield


@contextmanager
def concluded(*names: str) -> Iterator[None]:
    """Within it studies end as they do for users, or with these parts of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names or CONCLUSION:
            patch.setattr(PARTS[name][0], name, CONCLUSION[name])
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """An MLflow store without experiments: making one takes MLflow seconds, so all workers of a run share it."""
    own = tmp_path_factory.getbasetemp()
    path = (own if worker_id == "master" else own.parent) / "mlflow.db"
    (path.parent / "spool").mkdir(exist_ok=True)
    make_store(f"sqlite:///{path}")
    return path


@pytest.fixture(autouse=True, scope="session")
def _delivered_here(empty_store: Path) -> Iterator[None]:
    """What a study tells MLflow is delivered by the tests' own process, which has imported mlflow already.

    Where a test is about the process that does it, `_delivered_beside`.
    """

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EMPTY_STORE, str(empty_store))
        deliver_here(patch.setattr)
        yield


@contextmanager
def delivered_beside() -> Iterator[None]:
    """Within it studies reach MLflow by a process of its own, as they do for users."""
    with pytest.MonkeyPatch.context() as patch:
        for name, method in DELIVERY.items():
            patch.setattr(Tracker, name, method)
        yield


@pytest.fixture
def _delivered_beside() -> Iterator[None]:
    with delivered_beside():
        yield


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Ends(L.Callback):
    """Keeps each trial's epochs and, when it ends, its weights; prunes and admits as told."""

    def __init__(
        self,
        prune: Mapping[int, int] | None = None,
        admit: Mapping[int, Callable[[], dict[int, RegularizedModule]]] | None = None,
    ) -> None:
        self.prune, self.admit = prune or {}, admit or {}
        self.epochs: dict[int, list[TrialEpoch]] = {}
        self.states: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
        assert isinstance(population, Population)
        pruned = set()
        for number, epoch in population.trial_epochs.items():
            self.epochs.setdefault(number, []).append(epoch)
            if self.prune.get(number) == epoch.age:
                pruned.add(number)
            if epoch.end or number in pruned:
                self.states[number] = population.state(number)
        population.prune(pruned)
        if trainer.current_epoch in self.admit:
            population.admit(self.admit[trainer.current_epoch]())


def quiet_trainer(epochs: int, precision: str = "64-true", **options: object) -> L.Trainer:
    """A Trainer that prints and writes nothing."""
    return L.Trainer(
        max_epochs=epochs,
        precision=precision,  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"accelerator": "cpu"} | options,  # type: ignore[arg-type]
    )


def train_fused(
    trials: Mapping[int, RegularizedModule],
    data: L.LightningDataModule,
    epochs: int,
    ends: Ends | None = None,
    places: int = 32,
    precision: str = "64-true",
    fuse: bool = True,
    **options: object,
) -> Ends:
    """Train trials as one population; `options` are the Trainer's."""
    ends = ends or Ends()
    population = Population(data, epochs, places)
    population.admit(trials, fuse=fuse)
    quiet_trainer(-1, precision, callbacks=[ends], **options).fit(population)
    return ends


def train_alone(
    module: RegularizedModule,
    data: L.LightningDataModule,
    epochs: int,
    stop_after: int = 0,
    precision: str = "64-true",
    **options: object,
) -> L.Trainer:
    """Train one trial by plain Lightning; `stop_after` ends it early, with the schedule of all `epochs`."""
    callbacks = [_StopAfter(stop_after)] if stop_after else []
    trainer = quiet_trainer(epochs, precision, callbacks=callbacks, **options)
    trainer.fit(module, datamodule=data)
    return trainer


def distance_from_alone(
    ends: Ends, build: Callable[[int], RegularizedModule], data: L.LightningDataModule, epochs: int, **options: object
) -> float:
    """Largest difference, in weights or metrics, between trials that were trained and the same ones alone; NaN if one is."""
    found = []
    for number, state in ends.states.items():
        module, metrics = build(number), ends.epochs[number][-1].metrics
        trainer = train_alone(module, data, epochs, **options)  # type: ignore[arg-type]
        found.append(largest_difference(module.state_dict(), state))
        found += [abs(value - float(trainer.callback_metrics[key])) for key, value in metrics.items()]
    return torch.tensor(found).max().item()


class _StopAfter(L.Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.should_stop |= trainer.current_epoch + 1 >= self.epochs


def largest_difference(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """Largest absolute difference between two state dicts of the same keys; NaN if any entry is."""
    assert first.keys() == second.keys()
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


INF = math.inf
