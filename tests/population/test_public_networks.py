"""Networks of public libraries, as these give them, train in a population as by plain Lightning with their own losses.

Not part of `.[test]`: `pip install -c constraints.txt -e '.[test,networks]'`; what is not installed is skipped.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.plain_lightning import Plain
from support.public_builders import GROUPED, hugging_face
from support.public_networks import PUBLIC, PublicData
from support.training import quiet_trainer, train_fused

import wdsearch
from wdsearch.noise import NoiseStream
from wdsearch.population.fusibility import why_alone
from wdsearch.trial.dropout_in_use import dropout_in_use
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.own_loss import own_loss_note
from wdsearch.trial.recipe import Recipe

STRENGTHS = [
    {"weight_decay": 0.1, "dropout": 0.1},
    {"weight_decay": 3.0, "dropout": 0.5},
    {"weight_decay": 0.0, "dropout": 0.0},
]
ROUNDING = {"64-true": 1e-9, "32-true": 1e-6}
LR, EPS, SEED, EPOCHS = 1e-3, 1e-4, 3, 2
"""An `eps` far above the rounding of gradients: without it Adam makes steps of the gradient of a bias before a batch norm."""

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=PUBLIC)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of a network whose library is installed; of timm, which needs a torchvision for this torch, that it works."""
    library = PUBLIC[request.param].library
    try:
        importlib.import_module(library)
    except Exception as error:  # a torchvision for another torch raises RuntimeError
        pytest.skip(f"{library} cannot be imported: {error}")
    return request.param


def trial(name: str, number: int, seed: int = SEED) -> RegularizedModule:
    """A trial of a network that is built with another rate than the trial's."""
    public = PUBLIC[name]
    torch.manual_seed(0)
    return public.trial(public.build(0.2), STRENGTHS[number], LR, Recipe("adamw", eps=EPS), seed=seed)


def trials(name: str) -> dict[int, RegularizedModule]:
    return {number: trial(name, number) for number in range(len(STRENGTHS))}


def plain(name: str, number: int) -> Plain:
    """The same network, built by its library with the trial's rate, in plain Lightning."""
    public, strengths = PUBLIC[name], STRENGTHS[number]
    torch.manual_seed(0)
    network = public.build(strengths["dropout"])
    decayed = [one for one, _ in network.named_parameters() if not re.fullmatch(public.exempt, one)]
    options = {"lr": LR, "eps": EPS, "weight_decay": strengths["weight_decay"]}
    return Plain(network, public.loss, decayed, options, NoiseStream(SEED, "dropout"))


def test_it_trains_in_a_population_as_by_plain_lightning_with_its_librarys_loss(name: str) -> None:
    public = PUBLIC[name]
    data, allowed = PublicData(public, double=True), ROUNDING[public.precision]
    reason = why_alone(list(trials(name).values()), *PublicData(public).train)
    assert re.search(public.alone or "^None$", str(reason))
    ends = train_fused(trials(name), data, EPOCHS, precision=public.precision, fuse=reason is None)
    for number in range(len(STRENGTHS)):
        module, trainer = plain(name, number), quiet_trainer(EPOCHS, public.precision)
        trainer.fit(module, datamodule=data)
        for key, value in module.network.state_dict().items():
            torch.testing.assert_close(ends.states[number][f"network.{key}"], value, rtol=0.0, atol=allowed, msg=key)
        losses = ends.epochs[number][-1].metrics["loss/val"], float(trainer.callback_metrics["val_loss"])
        assert losses[0] == pytest.approx(losses[1], abs=allowed)
    head = trial(name, 0).decayed[-1]
    assert not torch.equal(ends.states[0][head], ends.states[1][head]), "trials differ"


def test_its_weights_decay_and_nothing_else(name: str) -> None:
    module = trial(name, 0)
    names = [one for one, _ in module.network.named_parameters()]
    expected = [f"network.{one}" for one in names if not re.fullmatch(PUBLIC[name].exempt, one)]
    assert module.decayed == expected
    assert 0 < len(expected) < len(names)


def test_no_dropout_of_it_keeps_a_rate_of_its_own(name: str) -> None:
    assert dropout_in_use(trial(name, 0), PublicData(PUBLIC[name]).train[0]).others == ()


def test_its_librarys_loss_is_the_one_that_it_is_trained_with_or_a_note_says_so(name: str) -> None:
    (batch, _), module = PublicData(PUBLIC[name]).train, trial(name, 0)
    assert own_loss_note(module, batch) is None
    if name == "Llama":
        causal = RegularizedModule(hugging_face("Llama", "CausalLM", **GROUPED)(0.0))
        assert "computes a loss itself" in str(own_loss_note(causal, {**batch, "labels": batch["input_ids"]}))


@pytest.mark.parametrize("name", ["BERT", "TabNet", "GCN"], indirect=True)
def test_a_study_of_it_runs(name: str, tmp_path: Path) -> None:
    study = {
        "study": "public",
        "model": lambda: PUBLIC[name].build(0.2),
        "data": PublicData(PUBLIC[name]),
        "space": {"weight_decay": {"low": 0.1, "high": 1.0}, "dropout": {"low": 0.0, "high": 0.5}},
        "budget": {"trials": 2, "epochs": 1},
        "trainer": {"accelerator": "cpu"},
    }
    assert wdsearch.run(study, home=tmp_path, progress=False).counts["complete"] == 2
