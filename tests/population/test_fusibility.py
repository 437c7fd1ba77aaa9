"""Users' networks: each is fused and exact, or trained one trial after another for the right reason."""

import re

import pytest
import torch
from support.training import largest_difference, train_alone, train_fused
from support.zoo import ZOO, ZooData
from support.zoo_trials import trial

from wdsearch.population import fusibility as fusing
from wdsearch.population.fusibility import slow_when_fused, step_alone, why_alone
from wdsearch.trial.module import RegularizedModule


def trials(name: str) -> list[RegularizedModule]:
    return [trial(name, number) for number in range(3)]


@pytest.mark.parametrize("name", ZOO)
def test_a_users_network_is_fused_or_the_layer_that_cannot_be_is_named(name: str) -> None:
    batch = next(iter(ZooData(ZOO[name].batch).train_dataloader()))
    reason = why_alone(trials(name), batch)
    if ZOO[name].alone is None:
        assert reason is None
    else:
        assert reason is not None
        assert re.search(ZOO[name].alone, reason), reason
        assert "\n" not in reason


@pytest.mark.parametrize("name", ZOO)
def test_trained_together_each_is_as_alone(name: str) -> None:
    """Fused to rounding; one after another to the last bit."""
    fuse = ZOO[name].alone is None
    ends = train_fused(dict(enumerate(trials(name))), ZooData(ZOO[name].batch), 4, fuse=fuse)
    for number, state in ends.states.items():
        module = trial(name, number)
        trainer = train_alone(module, ZooData(ZOO[name].batch), 4)
        assert largest_difference(module.state_dict(), state) <= (1e-9 if fuse else 0.0), number
        for key, value in ends.epochs[number][-1].metrics.items():
            assert value == pytest.approx(float(trainer.callback_metrics[key]), abs=1e-9), (number, key)
    assert len(ends.states) == 3


def test_trials_differ_so_that_the_tests_above_can_fail() -> None:
    ends = train_fused(dict(enumerate(trials("residual"))), ZooData(), 4)
    assert largest_difference(ends.states[0], ends.states[1]) > 1e-3


def test_large_convolutions_are_trained_one_after_another_on_a_cpu_alone() -> None:
    batch = next(iter(ZooData().train_dataloader()))
    each = 6 * 8 * 5 * 3  # multiplications of a row: channels out, places, channels in, kernel
    few, many = fusing.MOST_CONVOLVED // each, fusing.MOST_CONVOLVED // each + 1
    for rows, device, slow in ((few, "cpu", False), (many, "cpu", True), (many, "cuda", False)):
        reason = slow_when_fused(trial("group norm", 0), batch, rows, torch.device(device))
        assert (reason is not None) is slow
        assert "0 (Conv1d)" in str(reason) or not slow
    assert slow_when_fused(trial("residual", 0), batch, 10**9, torch.device("cpu")) is None


def test_what_a_network_draws_itself_depends_on_epoch_and_batch_alone() -> None:
    batch = next(iter(ZooData().train_dataloader()))
    module = trial("random slope", 0)
    first = step_alone(module, batch)["objective"]
    torch.rand(7)
    assert step_alone(module, batch)["objective"] == first
    assert step_alone(module, batch, 1)["objective"] != first
