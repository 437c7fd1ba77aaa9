"""One protocol of training: a population and user-defined modules call their callback alike, and obey it alike."""

from collections.abc import Callable, Mapping

import lightning as L
import pytest
import torch
from support.training import quiet_trainer
from support.users_module import Own
from support.zoo import ZooData
from torch import nn

from wdsearch.errors import StoppedError
from wdsearch.population.population import Population
from wdsearch.population.training import Training, TrainingCallback
from wdsearch.population.user.module import UserModules
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.result import FINISHED

EPOCHS = 3
Started = tuple[Training, Callable[[TrainingCallback], None]]


def population() -> Started:
    training = Population(ZooData(), EPOCHS)
    return training, lambda callback: quiet_trainer(-1, "32-true", callbacks=[callback]).fit(training)


def user_modules() -> Started:
    training = UserModules(ZooData(), EPOCHS, {"accelerator": "cpu"})
    return training, training.fit


def trials(training: Training, *numbers: int) -> Mapping[int, L.LightningModule]:
    if isinstance(training, UserModules):
        return {number: Own() for number in numbers}
    return {
        number: RegularizedModule(nn.Sequential(nn.Flatten(), nn.Linear(40, 3)), {"weight_decay": 0.1})
        for number in numbers
    }


class Script(TrainingCallback):
    """Begins with trials 0 and 1; after the first epoch 0 leaves and 2 joins. Records each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[int, int]]] = []
        self.checks = 0
        self.ends: dict[int, str | None] = {}

    def begin(self, training: Training) -> None:
        self.calls.append(("begin", {}))
        training.admit(trials(training, 0, 1))

    def check(self) -> None:
        self.checks += 1

    def end_epoch(self, training: Training) -> None:
        epochs = training.trial_epochs
        self.calls.append(("end_epoch", {number: epoch.age for number, epoch in sorted(epochs.items())}))
        for number, epoch in epochs.items():
            self.ends[number] = epoch.end
            assert {"loss/train", "loss/val", "loss/gap"} <= epoch.metrics.keys()
            assert all(isinstance(value, torch.Tensor) for value in training.state(number).values())
            assert training.diagnosis(number).whole
        if len(self.calls) == 2:
            training.prune({0})
            training.admit(trials(training, 2))


@pytest.mark.parametrize("build", [population, user_modules])
def test_it_calls_back_at_the_beginning_with_each_batch_and_at_each_epochs_end(build: Callable[[], Started]) -> None:
    training, fit = build()
    assert isinstance(training, Training)
    script = Script()
    fit(script)
    assert script.calls == [
        ("begin", {}),
        ("end_epoch", {0: 1, 1: 1}),
        ("end_epoch", {1: 2, 2: 1}),
        ("end_epoch", {1: 3, 2: 2}),
        ("end_epoch", {2: 3}),
    ]
    assert script.ends == {0: None, 1: FINISHED, 2: FINISHED}
    assert script.checks > 0


@pytest.mark.parametrize("build", [population, user_modules])
def test_what_a_check_raises_ends_it(build: Callable[[], Started]) -> None:
    class Stop(Script):
        def check(self) -> None:
            if len(self.calls) > 1:
                raise StoppedError

    _, fit = build()
    script = Stop()
    with pytest.raises(StoppedError):
        fit(script)
    assert script.calls == [("begin", {}), ("end_epoch", {0: 1, 1: 1})]
