"""Networks and batches as people write them give the losses and the gap of a plain loop of torch, trial by trial."""

import re

import pytest
import torch
from support.plain_loop import plain_loop, searched, study_of
from support.written_networks import WRITTEN, Data, Double, arrays, perceptron
from torch import nn

from wdsearch.errors import BuildError
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import load_study

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore:.*nested tensor.*:UserWarning",
    "ignore:None of the inputs have requires_grad:UserWarning",
    "ignore:.*torch.jit.script. is deprecated",
)


@pytest.mark.parametrize("name", WRITTEN)
def test_losses_and_gap_are_those_of_a_plain_loop(name: str) -> None:
    one = WRITTEN[name]
    alone, trials = searched(study_of(one.model or one.build, one.data()))
    if one.alone is None:
        assert alone is None
    else:
        assert re.search(one.alone, str(alone)), alone
    for weight_decay, metrics in zip((0.0, 2.0), trials, strict=True):
        expected = plain_loop(one.build, one.data(), one.decayed, weight_decay, one.call, one.loss)
        assert metrics == pytest.approx(expected, rel=1e-12 if one.precise else 2e-5, abs=0.0 if one.precise else 2e-6)
    assert trials[0]["val_loss"] != pytest.approx(trials[1]["val_loss"], rel=1e-4), "decay acts"


def test_rows_of_64_bits_are_refused_by_a_network_of_32_and_trained_in_64_as_the_remedy_says() -> None:
    def network() -> nn.Module:
        return perceptron(2).to(torch.get_default_dtype())

    with pytest.raises(
        BuildError, match=r"give them as float32 .* or train all in 64 bits \(trainer: \{precision: 64\}\)"
    ):
        searched(study_of(network, Data(arrays)))
    in_64_bits = {"trainer": {"accelerator": "cpu", "precision": 64}}
    alone, (trial,) = searched(study_of(network, Data(arrays), **in_64_bits), strengths=[2.0])
    assert alone is None
    one = WRITTEN["64 bits"]
    decayed = [name.removeprefix("body.") for name in one.decayed]
    expected = plain_loop(lambda: network().double(), Data(arrays), decayed, 2.0, one.call)
    assert trial == pytest.approx(expected, rel=1e-12)


def test_it_is_said_that_a_network_of_64_bits_trains_in_them() -> None:
    config = load_study(study_of(Double, Data(arrays)))
    assert "in 64 bits, as the network is; fused" in TrialFactory(config, build_data(config)).training(2)


def test_objects_that_hold_tensors_are_trained_in_64_bits_too() -> None:
    one = WRITTEN["graphs as an object"]
    in_64_bits = {"trainer": {"accelerator": "cpu", "precision": 64}}
    _, (trial,) = searched(study_of(one.build, one.data(), **in_64_bits), strengths=[2.0])
    expected = plain_loop(
        lambda: one.build().double(),
        one.data(),
        one.decayed,
        2.0,
        lambda network, batch: (network(batch.nodes.double(), batch.number), batch.y),
    )
    assert trial == pytest.approx(expected, rel=1e-12)
