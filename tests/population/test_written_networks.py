"""Networks and batches as people write them give the losses and the gap of a plain loop of torch, trial by trial."""

import re

import pytest
from support.plain_loop import plain_loop, searched, study_of
from support.written_networks import WRITTEN

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore:.*nested tensor.*:UserWarning",
    "ignore:None of the inputs have requires_grad:UserWarning",
    "ignore:.*torch.jit.script. is deprecated",
)


@pytest.mark.parametrize("name", WRITTEN)
def test_losses_and_gap_are_those_of_a_plain_loop(name: str) -> None:
    one = WRITTEN[name]
    alone, trials = searched(study_of(one.build, one.data()))
    if one.alone is None:
        assert alone is None
    else:
        assert re.search(one.alone, str(alone)), alone
    for weight_decay, metrics in zip((0.0, 2.0), trials, strict=True):
        expected = plain_loop(one.build, one.data(), one.decayed, weight_decay, one.call, one.loss)
        assert metrics == pytest.approx(expected, rel=1e-12 if one.precise else 2e-5, abs=0.0 if one.precise else 2e-6)
    assert trials[0]["val_loss"] != pytest.approx(trials[1]["val_loss"], rel=1e-4), "decay acts"
