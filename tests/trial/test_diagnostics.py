"""Diagnostics of a trial's weights, updates and gradients, beside NumPy, SciPy and plain Lightning."""

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import pytest
import scipy.stats
import torch
from support.training import INF, Ends, quiet_trainer, train_fused
from support.written_networks import WRITTEN
from torch import nn

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.optimizers import OPTIMIZERS
from wdsearch.population.population import Population
from wdsearch.population.step_statistics import EVERY
from wdsearch.trial.diagnostics import Span, Steps, diagnose
from wdsearch.trial.function_measures import function_measures, output_scale, scale_invariant_share
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe
from wdsearch.trial.result import Diagnosis
from wdsearch.trial.weight_measures import nonnormality, weight_measures

EPOCHS = 4
RECIPES = {key: Recipe(key, schedule="cosine") for key in OPTIMIZERS}
TRIALS: Mapping[int, dict[str, float]] = {
    0: {"weight_decay": 0.0, "l1": 0.0, "gradient_clip": INF},
    1: {"weight_decay": 3.0, "l1": 1e-3, "gradient_clip": 0.1},
    2: {"weight_decay": 0.5, "l1": 0.0, "gradient_clip": 1.0},
}


def data() -> Any:
    return DATASETS["digits"](batch_size=64, seed=3)


def trial(number: int, recipe: Recipe = RECIPES["adamw"], lr: float = 2e-3) -> RegularizedModule:
    torch.manual_seed(0)
    return RegularizedModule(MODELS["mlp"](64, 10, hidden=(24, 16)), TRIALS[number], lr, recipe, seed=3)


class Diagnoses(Ends):
    """Keeps each trial's diagnosis when it ends."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.found: dict[int, Diagnosis] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
        assert isinstance(population, Population)
        ending = [n for n, e in population.trial_epochs.items() if e.end or self.prune.get(n) == e.age]
        self.found |= {number: population.diagnosis(number) for number in ending}
        super().on_train_epoch_end(trainer, population)


class Straight(L.Callback):
    """The same quantities of a trial that plain Lightning trains, step by step and without any care for speed."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.sizes: list[dict[str, float]] = []
        self.angles: list[dict[str, float]] = []
        self._before: dict[str, np.ndarray] = {}

    def on_after_backward(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        entries = np.concatenate([p.grad.numpy().ravel() for p in module.parameters() if p.grad is not None])
        self.norms.append(float(np.linalg.norm(entries)))
        assert isinstance(module, RegularizedModule)
        self._before = {name: module.get_parameter(name).detach().numpy().copy().ravel() for name in module.decayed}

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        after = {name: module.get_parameter(name).detach().numpy().ravel() for name in self._before}
        pairs = {name: (self._before[name], after[name]) for name in after}
        self.sizes.append({name: float(np.linalg.norm(b - a) / np.linalg.norm(a)) for name, (a, b) in pairs.items()})
        cosines = {name: a @ b / np.linalg.norm(a) / np.linalg.norm(b) for name, (a, b) in pairs.items()}
        self.angles.append({name: math.acos(min(1.0, cosine)) for name, cosine in cosines.items()})


def alone(number: int, recipe: Recipe) -> tuple[RegularizedModule, Straight]:
    module, straight = trial(number, recipe), Straight()
    quiet_trainer(EPOCHS, callbacks=[straight]).fit(module, datamodule=data())
    return module, straight


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "looped"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_updates_and_gradients_are_those_of_the_trial_alone(recipe: Recipe, fuse: bool) -> None:
    ends = Diagnoses()
    train_fused({number: trial(number, recipe) for number in TRIALS}, data(), EPOCHS, ends, fuse=fuse)
    for number in TRIALS:
        module, straight = alone(number, recipe)
        found = ends.found[number]
        assert found.whole["gradient_norm_max"] == pytest.approx(max(straight.norms), rel=1e-6)
        assert found.whole["gradient_norm_999"] == pytest.approx(np.quantile(straight.norms, 0.999), rel=1e-6)
        measured = [step for step in range(len(straight.norms)) if (step + 1) % EVERY == EVERY // 2]
        late = measured[len(measured) // 2 :]
        for name in module.decayed:
            layer = found.layers[name.removeprefix("network.")]
            sizes, angles = ([one[step][name] for step in late] for one in (straight.sizes, straight.angles))
            assert layer["relative_update"] == pytest.approx(np.mean(sizes), rel=1e-6), name
            assert layer["rotation"] == pytest.approx(np.mean(angles), rel=1e-4), name
        decay, steps = TRIALS[number]["weight_decay"], len(straight.norms)
        factors = [recipe.factor(step, steps) for step in range(steps)]
        assert found.whole["shrinkage"] == pytest.approx(1 - np.exp(-2e-3 * decay * sum(factors)), rel=1e-6)
        if decay:
            assert found.whole["timescale"] == pytest.approx(1 / (2e-3 * decay * sum(factors)), rel=1e-6)
            beta = recipe.momentum if recipe.optimizer == "sgd" else recipe.betas[0]
            rates = np.array([2e-3 * factors[step] for step in late])
            predicted = np.sqrt(2 * rates * decay).mean() * math.sqrt((1 - beta) / (1 + beta))
            assert found.whole["predicted_rotation"] == pytest.approx(predicted, rel=1e-6)
        else:
            assert "predicted_rotation" not in found.whole


def test_weights_and_units_are_measured_as_numpy_and_scipy_do() -> None:
    ends = Diagnoses()
    train_fused({number: trial(number) for number in TRIALS}, data(), EPOCHS, ends)
    rows = data()
    rows.setup()
    inputs = next(iter(rows.val_dataloader()))[0].double()
    for number, found in ends.found.items():
        module = trial(number).double()
        module.load_state_dict(ends.states[number])
        hidden, entries = inputs.numpy(), []
        for name, layer in found.layers.items():
            weight = module.network.get_parameter(name).detach().numpy()
            bias = module.network.get_parameter(name.replace("weight", "bias")).detach().numpy()
            values = np.linalg.svd(weight, compute_uv=False)
            outputs = hidden @ weight.T + bias
            units = weight / np.linalg.norm(weight, axis=1, keepdims=True)
            cosines, correlations = np.abs(units @ units.T), np.abs(np.corrcoef(outputs.T))
            others = ~np.eye(len(weight), dtype=bool)
            expected = {
                "norm": np.linalg.norm(weight),
                "spectral_norm": values[0],
                "condition": values[0] / values[-1],
                "stable_rank": np.linalg.norm(weight) ** 2 / values[0] ** 2,
                "std": weight.std(),
                "kurtosis": scipy.stats.kurtosis(weight.ravel()),
                "zeros": np.mean(weight == 0),
                "tiny": np.mean(np.abs(weight) < 1e-3),
                "weight_correlation": cosines[others].mean(),
                "activation_correlation": correlations[others].mean(),
                "effective_rate": 2e-3 / np.linalg.norm(weight) ** 2,
            }
            for quantity, value in expected.items():
                assert layer[quantity] == pytest.approx(value, rel=1e-6), (number, name, quantity)
            hidden = np.maximum(outputs, 0)
            entries.append(weight.ravel())
        together = np.concatenate(entries)
        assert found.whole["norm"] == pytest.approx(np.linalg.norm(together), rel=1e-6)
        assert found.whole["zeros"] == pytest.approx(np.mean(together == 0), rel=1e-6)
        counts, _ = np.histogram(together, bins=60, range=(-abs(together).max(), abs(together).max()))
        assert found.histogram["counts"] == counts.tolist()
        assert sum(found.histogram["counts"]) == len(together)
    assert ends.found[1].whole["zeros"] > 0.05, "l1 made zeros"
    assert ends.found[0].whole["zeros"] == 0


def test_neighbours_and_max_fused_change_no_bit_of_a_diagnosis() -> None:
    trials = {number: trial(number) for number in TRIALS}
    together, sliced, lone = Diagnoses(), Diagnoses(), Diagnoses()
    train_fused(trials, data(), EPOCHS, together, precision="32-true")
    train_fused({number: trial(number) for number in TRIALS}, data(), EPOCHS, sliced, max_fused=1, precision="32-true")
    train_fused({1: trial(1)}, data(), EPOCHS, lone, precision="32-true")
    assert together.found == sliced.found
    assert lone.found[1] == together.found[1]


def test_a_pruned_trial_is_diagnosed_as_it_leaves_and_a_diverged_one_as_far_as_it_can_be() -> None:
    ends = Diagnoses(prune={2: 2})
    trials = {0: trial(0), 1: trial(1, lr=1e30), 2: trial(2)}
    train_fused(trials, data(), EPOCHS, ends, precision="32-true")
    assert ends.epochs[1][-1].end == "diverged"
    assert all(math.isfinite(value) for value in ends.found[1].whole.values())
    steps = len(data_with_setup().train_dataloader()) * EPOCHS
    done = sum(RECIPES["adamw"].factor(step, steps) for step in range(steps // 2))
    assert ends.found[2].whole["shrinkage"] == pytest.approx(1 - math.exp(-2e-3 * 0.5 * done), rel=1e-6)


def data_with_setup() -> Any:
    made = data()
    made.setup()
    return made


def test_trends_come_ten_times_in_a_training() -> None:
    ends = train_fused({number: trial(number) for number in TRIALS}, data(), 20)
    for epochs in ends.epochs.values():
        measured = [epoch.age for epoch in epochs if epoch.trends]
        assert measured == list(range(2, 21, 2))
        names = {"weights/norm", "gradients/largest", "updates/relative", "updates/rotation"}
        assert all(set(epoch.trends) == names for epoch in epochs if epoch.trends)
    decayed, free = ends.epochs[2][-1].trends["weights/norm"], ends.epochs[0][-1].trends["weights/norm"]
    assert decayed < free


@pytest.mark.filterwarnings("ignore:.*nested tensor.*:UserWarning")
def test_a_transformer_with_a_padding_mask_is_looked_at() -> None:
    """Else torch's encoder makes nested tensors of rows with padding."""
    one = WRITTEN["padding mask"]
    module = RegularizedModule(one.build())
    layers = function_measures(module, next(iter(one.data().train_dataloader()))).layers
    assert {"network.head.weight", "network.body.encoder.layers.0.linear1.weight"} <= layers.keys()
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_a_scripted_network_is_measured_by_its_weights_alone() -> None:
    one = WRITTEN["scripted"]
    module = RegularizedModule(one.build(), {"weight_decay": 0.1})
    none, unmeasured = torch.zeros(0), torch.zeros(0, len(module.decayed))
    steps = Steps(none, unmeasured, unmeasured, none)
    diagnosis = diagnose(module, next(iter(one.data().train_dataloader())), steps, Span(1, 1, 1))
    assert diagnosis.layers["0.weight"]["norm"] > 0
    assert "activation_correlation" not in diagnosis.layers["0.weight"]


def test_a_weight_of_zeros_or_of_one_unit_is_no_error() -> None:
    zeros = weight_measures(torch.zeros(4, 3))
    assert zeros["zeros"] == 1.0
    assert zeros["norm"] == 0.0
    assert math.isnan(zeros["stable_rank"])
    assert math.isnan(weight_measures(torch.ones(1, 3))["weight_correlation"])
    assert weight_measures(torch.full((2, 2), math.nan)) == {}
    kernel = torch.randn(8, 3, 5, 5)
    assert weight_measures(kernel)["spectral_norm"] == pytest.approx(
        float(torch.linalg.matrix_norm(kernel.double().flatten(1), 2)), rel=1e-9
    )


def test_the_spectrum_of_a_huge_weight_is_the_largest_singular_value_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wdsearch.trial.weight_measures.LARGEST_SPECTRUM", 16)
    torch.manual_seed(0)
    weight = torch.randn(40, 30) + 0.5
    found = weight_measures(weight)
    assert found["spectral_norm"] == pytest.approx(float(torch.linalg.matrix_norm(weight.double(), 2)), rel=1e-6)
    assert math.isnan(found["condition"])


@pytest.mark.parametrize(
    ("network", "share"),
    [
        (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)), 48 / 64),
        (nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)), 48 / 64),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), 0.0),
        (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2), nn.BatchNorm1d(2)), 1.0),
    ],
    ids=["batch norm", "layer norm", "none", "all"],
)
def test_the_share_of_weights_before_norm_layers(network: nn.Module, share: float) -> None:
    torch.manual_seed(0)
    module = RegularizedModule(network)
    batch = (torch.randn(64, 6), torch.randint(2, (64,)))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert scale_invariant_share(module, batch) == pytest.approx(share)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def diagnosed(network: nn.Module, batch: Any, steps: Steps | None = None) -> Mapping[str, float]:
    lonely = Steps(torch.empty(0), torch.empty(0, 0), torch.empty(0, 0), torch.empty(0))
    return diagnose(RegularizedModule(network, {}), batch, steps or lonely, Span(6, 6, 3)).whole


def test_complexity_is_that_of_the_function_not_of_its_scale() -> None:
    """Ten times the last layer, or a layer before a norm layer, changes no decision: neither moves it."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)
    )
    batch = (torch.randn(64, 6), torch.randint(3, (64,)))
    network(batch[0])  # running statistics
    outputs = network.eval()(batch[0]).detach()
    before = diagnosed(network, batch)
    own = outputs.gather(1, batch[1][:, None])[:, 0]
    others = outputs.masked_fill(nn.functional.one_hot(batch[1], 3).bool(), -INF).amax(1)
    margin = float((own - others)[own > others].median())
    norms = [float(np.linalg.norm(network[layer].weight.detach().numpy(), 2)) for layer in (3, 5)]
    right = (own - others)[own > others].double()
    assert before["log_complexity"] == pytest.approx(
        math.log(norms[0] * norms[1] / float(right.quantile(0.5))), rel=1e-4
    )
    assert margin > 0
    with torch.no_grad():
        network[5].weight *= 10.0
        network[0].weight *= 10.0
        network[0].bias *= 10.0
        network[1].running_mean *= 10.0
        network[1].running_var *= 100.0
    after = diagnosed(network, batch)
    assert after["norm"] > 5 * before["norm"]
    assert after["log_complexity"] == pytest.approx(before["log_complexity"], rel=1e-3)


def test_the_scale_of_other_outputs_is_their_deviation() -> None:
    outputs, targets = torch.randn(50, 1).double(), torch.randn(50, 1)
    assert output_scale(outputs, targets) == pytest.approx(float(outputs.std(correction=0)))
    assert math.isnan(output_scale(torch.tensor([[1.0, 0.0]]), torch.tensor([1])))


def test_a_dead_network_is_known() -> None:
    torch.manual_seed(0)
    batch = (torch.randn(32, 4), torch.randint(2, (32,)))
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert diagnosed(network, batch)["dead"] == 0.0
    with torch.no_grad():
        network[0].bias.fill_(-100.0)
    assert diagnosed(network, batch)["dead"] == 1.0


def test_the_shape_of_weights_is_scipys_whatever_their_scale() -> None:
    random = np.random.default_rng(0)
    for draw in (random.standard_normal, random.random, lambda size: random.standard_t(3, size)):
        entries = draw(2000)
        (quantiles, ordered), _ = scipy.stats.probplot(
            entries
        )  # Filliben's positions; Blom's are as near as the third digit
        expected = 1 - np.corrcoef(quantiles, ordered)[0, 1] ** 2
        found = nonnormality(torch.from_numpy(7.0 * entries + 3.0))
        assert found == pytest.approx(expected, rel=0.05, abs=3e-4)


def test_gradients_are_judged_after_the_first_epoch() -> None:
    """Two steps an epoch: the largest norm of all is in the first."""
    norms = torch.tensor([9.0, 8.0, 3.0, 5.0, 4.0, 2.0])
    steps = Steps(norms, torch.empty(0, 0), torch.empty(0, 0), torch.empty(0))
    whole = diagnosed(nn.Linear(4, 2), (torch.randn(8, 4), torch.randint(2, (8,))), steps)
    assert (whole["gradient_norm_max"], whole["gradient_norm_late"]) == (9.0, 5.0)


def test_balance_is_that_of_normalised_layers_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    sizes, angles = torch.tensor([[0.1, 0.2, 9.0]] * 4), torch.zeros(4, 3)
    batch = (torch.randn(16, 4), torch.randint(2, (16,)))
    steps = Steps(torch.ones(6), sizes, angles, torch.ones(4))
    assert diagnosed(network, batch, steps)["update_spread"] == pytest.approx(math.log(2) / 2, rel=1e-5)
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    assert "update_spread" not in diagnosed(plain, batch, steps)
