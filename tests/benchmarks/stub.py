"""Training that costs nothing, for the benchmark of what is around it."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from wdsearch.population.cohort import TrialEpoch
from wdsearch.population.training import TrainingCallback
from wdsearch.search import session
from wdsearch.search.run import work
from wdsearch.study.factory import TrialFactory
from wdsearch.tracking.mlflow_tracker import MlflowTracker
from wdsearch.trial.result import FINISHED, Diagnosis


class Stub:
    """Substitute for a population, as a search sees it; its losses are drawn by the trial's number and age."""

    def __init__(self, data: Any, epochs: int, max_fused: int, seed: int) -> None:
        self.epochs = epochs
        self.ages: dict[int, int] = {}
        self.trial_epochs: dict[int, TrialEpoch] = {}
        self.cohorts: list[Any] = []

    def admit(self, trials: Mapping[int, Any], saved: Any = None, fuse: bool = True) -> None:
        """Let trials join."""
        self.ages |= dict.fromkeys(trials, 0)

    def prune(self, numbers: set[int]) -> None:
        """Let trials leave."""
        for number in numbers:
            del self.ages[number]

    def state(self, number: int) -> dict[str, Any]:
        """No weights."""
        return {}

    def diagnosis(self, number: int) -> Diagnosis:
        """Nothing to see."""
        return Diagnosis({}, {}, {})

    def fit(self, callback: TrainingCallback) -> None:
        """Every epoch at once."""
        callback.begin(self)
        while self.ages:
            self.ages = {number: age + 1 for number, age in self.ages.items()}
            self.trial_epochs = {number: self._epoch(number, age) for number, age in self.ages.items()}
            callback.end_epoch(self)

    def _epoch(self, number: int, age: int) -> TrialEpoch:
        drawn = random.Random(f"{number} {age}")
        metrics = {
            f"{name}/{side}": drawn.random() for name in ("loss", "accuracy") for side in ("train", "val", "gap")
        }
        return TrialEpoch(number, age, metrics, metrics, FINISHED if age == self.epochs else None)


class _Trainer:
    def __init__(self, _: Any, callback: TrainingCallback) -> None:
        self.callback = callback

    def fit(self, population: Stub) -> None:
        """Train."""
        population.fit(self.callback)


@contextmanager
def stubbed() -> Iterator[Callable[[str, str], None]]:
    """`work(study, storage)` without training, weights, report, or delivery."""
    patches = [
        patch.object(session, "Population", Stub),
        patch.object(session, "population_trainer", _Trainer),
        patch.object(session, "conclude", lambda *_: None),
        patch.object(TrialFactory, "trial", lambda self, settings: object()),
        patch.object(TrialFactory, "why_alone", lambda self, model: None),
        patch.object(MlflowTracker, "start_delivery", lambda self: None),
        patch.object(MlflowTracker, "finish", _finish),
        patch("wdsearch.search.loop.SearchLoop._replace_weights", lambda *_: None),
    ]
    for one in patches:
        one.start()
    try:
        yield lambda name, url: work(name, storage=url, progress=False)
    finally:
        for one in patches:
            one.stop()


def _finish(self: MlflowTracker, **_: Any) -> Any:
    from wdsearch.tracking.tracker import Delivery

    self.flush()
    return Delivery(None, 0, self.log_file)
