"""Actions after a step: ema against torch's own averaging, max-norm as a projection without memory, and who judges by what."""

import math
from dataclasses import replace

import lightning as L
import pytest
import torch
from support.regularizer_contract import changes_by_its_strength, fused_equals_alone
from support.training import largest_difference, quiet_trainer, train_alone, train_fused
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.population.population import Population
from wdsearch.regularizers import REGULARIZERS, Regularizer
from wdsearch.trial.loaders import batches_of
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe
from wdsearch.types import Interval, Params, Range

EPOCHS = 3
DECAYS = [0.0, 0.5, 0.9, 0.99, 0.9999]


def data() -> L.LightningDataModule:
    return DATASETS["digits"](batch_size=128, seed=3)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS["mlp"](64, 10, hidden=(24, 16), norm="batch")


def averaged(decay: float) -> tuple[dict[str, Tensor], float]:
    """State and validation loss of torch's average after each step of plain torch: nothing of wdsearch but data and network."""
    model, source = network().double(), data()
    source.setup()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for epoch in range(EPOCHS):
        for inputs, targets in batches_of(source.train_dataloader(), 3, epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs.double()), targets).backward()
            optimizer.step()
            average.update_parameters(model)
    inputs, targets = source.parts["validation"].tensors
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(average.eval()(inputs.double()), targets)
    return {f"network.{name}": value for name, value in average.module.state_dict().items()}, loss.item()


def trial(decay: float, **strengths: float) -> RegularizedModule:
    return RegularizedModule(network(), {"ema": decay} | strengths, seed=3)


@pytest.mark.parametrize("way", ["fused", "looped", "alone"])
def test_ema_is_torchs_averaged_model(way: str) -> None:
    """Weights and the statistics of batch norm, and the loss by which the trial is judged."""
    states, losses = {}, {}
    if way == "alone":
        for decay in DECAYS:
            module = trial(decay)
            losses[decay] = float(train_alone(module, data(), EPOCHS).callback_metrics["loss/val"])
            states[decay] = module.state_dict()
    else:
        ends = train_fused({n: trial(d) for n, d in enumerate(DECAYS)}, data(), EPOCHS, fuse=way == "fused")
        states = {decay: ends.states[number] for number, decay in enumerate(DECAYS)}
        losses = {decay: ends.epochs[number][-1].result["loss/val"] for number, decay in enumerate(DECAYS)}
    for decay in DECAYS:
        expected, loss = averaged(decay)
        assert expected.keys() <= states[decay].keys()
        assert largest_difference(expected, {name: states[decay][name] for name in expected}) < 1e-9, decay
        assert losses[decay] == pytest.approx(loss, abs=1e-9)
    assert largest_difference(states[0.9], states[0.99]) > 1e-3


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "looped"])
def test_the_best_state_and_the_diagnosis_are_of_the_average(fuse: bool) -> None:
    class Judged(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
            for number in population.live:
                state, (cohort,) = population.state(number), population.cohorts
                module = cohort.module(number)
                assert largest_difference(state, module.state_dict()) == 0.0
                loss = module.eval().loss(module(inputs.double()), targets).item()
                assert loss == pytest.approx(population.trial_epochs[number].result["loss/val"], abs=1e-12)
                norms.append(population.diagnosis(number).whole["norm"])
                weights = torch.cat([state[name].flatten() for name in module.decayed])
                assert norms[-1] == pytest.approx(weights.norm().item(), rel=1e-6)

    source, norms = data(), []
    source.setup()
    inputs, targets = source.parts["validation"].tensors
    population = Population(data(), EPOCHS)
    patiences = [1.0, 1.0, math.inf, math.inf]
    population.admit({n: trial(0.9, early_stopping=p) for n, p in enumerate(patiences)}, fuse=fuse)
    quiet_trainer(-1, callbacks=[Judged()]).fit(population)
    assert norms


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "looped"])
def test_trials_that_leave_take_what_is_remembered_with_them(fuse: bool) -> None:
    class Leaves(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
            population.prune({1, 3})
            (cohort,) = population.cohorts
            if fuse:
                rows.append({len(value) for value in cohort.states["ema"].values()})
            else:
                rows.append({len(cohort.modules)})

    rows: list[set[int]] = []
    population = Population(data(), EPOCHS)
    population.admit({n: trial(decay) for n, decay in enumerate(DECAYS)}, fuse=fuse)
    quiet_trainer(-1, callbacks=[Leaves()]).fit(population)
    assert rows == [{3}] * EPOCHS


def test_nothing_is_remembered_and_nothing_done_where_no_regularizer_asks_for_it() -> None:
    class Nothing(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
            (cohort,) = population.cohorts
            assert cohort.states == {}
            assert cohort._evaluated() is cohort.params

    population = Population(data(), 1)
    population.admit(
        {0: RegularizedModule(network(), {"weight_decay": 1.0}), 1: RegularizedModule(network(), {"weight_decay": 0.0})}
    )
    quiet_trainer(-1, callbacks=[Nothing()]).fit(population)


# -- another regularizer at the same points -------------------------------------------------------------------------


def _project(weights: Params, state: Params, step: int, strength: Tensor) -> tuple[Params, Params]:
    """Each unit's incoming weights to a norm of at most the strength (Srivastava et al. 2014, section 5.1)."""
    return {name: _shortened(weight, strength) for name, weight in weights.items()}, state


def _shortened(weight: Tensor, limit: Tensor) -> Tensor:
    norms = weight.flatten(1).square().sum(1).sqrt().view(-1, *(1,) * (weight.ndim - 1))
    return weight * (limit / (norms + 1e-12)).clamp(max=1.0)


MAX_NORM = Regularizer(
    key="max_norm",
    summary="largest norm of a unit's incoming weights",
    unit="norm; ∞ is off",
    neutral=math.inf,
    domain=Interval(0.0, math.inf, low_open=True),
    usual=Range(0.1, 2.0),
    torch=lambda strength, _: f"torch.renorm(weight, 2, 0, {strength:.6g})",
    after_step=_project,
)


@pytest.fixture
def max_norm(monkeypatch: pytest.MonkeyPatch) -> Regularizer:
    monkeypatch.setitem(REGULARIZERS._entries, "max_norm", MAX_NORM)
    return MAX_NORM


def test_a_projection_without_memory_meets_the_contract(max_norm: Regularizer) -> None:
    fused_equals_alone(max_norm, "adamw")
    changes_by_its_strength(max_norm, "adamw")


def test_a_projection_acts_on_its_group_and_is_torchs_renorm(max_norm: Regularizer) -> None:
    recipe = Recipe(groups={"max_norm": {"head": "output", "rest": "."}})
    strengths = {"max_norm:head": 0.2, "max_norm:rest": math.inf}
    for fuse in (True, False):
        build = {n: RegularizedModule(network(), strengths, 0.01, recipe, seed=3) for n in range(2)}
        head, *others = reversed(build[0].decayed)
        assert build[0].members["max_norm:head"] == [head]
        state = train_fused(build, data(), EPOCHS, fuse=fuse).states[0]
        assert state[head].norm(dim=1).max().item() == pytest.approx(0.2, abs=1e-9)
        assert torch.allclose(torch.renorm(state[head], 2, 0, 0.2), state[head], rtol=0, atol=1e-6)
        assert all(state[name].norm(dim=1).max() > 0.3 for name in others)


def test_two_averages_in_one_trial_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGULARIZERS._entries, "other", replace(REGULARIZERS["ema"], key="other"))
    with pytest.raises(ValueError, match="ema and other each say which weights are evaluated"):
        trial(0.9, other=0.5)
