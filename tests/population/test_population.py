"""The constitution: a trial trained in a population gives the numbers of the same module trained alone."""

import copy
import math
from collections.abc import Sequence
from functools import cache
from itertools import product

import lightning as L
import pytest
import torch
from support.networks import BFLOAT16, RECIPES, STRENGTHS
from support.training import Ends, largest_difference, quiet_trainer, train_alone, train_fused

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.population.population import Population
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

EPOCHS = 4


def data():
    return DATASETS["digits"](batch_size=128, seed=3)


def trial(number: int, recipe: Recipe, batch_norm: bool = True, **changes: float) -> RegularizedModule:
    torch.manual_seed(0)
    network = MODELS["mlp"](64, 10, hidden=(24, 16), norm="batch" if batch_norm else None)
    strengths = {key: values[number] for key, values in STRENGTHS.items()}
    lr = changes.pop("lr", 1e-3 * (number + 1) / 10)
    return RegularizedModule(network, strengths | changes, lr, recipe, seed=3)


@cache
def alone(recipe: str, number: int, stop_after: int) -> tuple[dict[str, torch.Tensor], dict[str, float], int]:
    """Weights, metrics and age of a trial that was trained by plain Lightning."""
    module = trial(number, RECIPES[recipe])
    trainer = train_alone(module, data(), EPOCHS, stop_after=stop_after)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return module.state_dict(), metrics, trainer.current_epoch


# how many are fused is not known to an optimizer: two recipes each see trials that wait for a place
@pytest.mark.parametrize(
    ("name", "max_fused"), [*((name, 32) for name in RECIPES), *product(("adamw", "nesterov"), (3, 1))]
)
def test_a_fused_trial_equals_training_it_alone(name: str, max_fused: int) -> None:
    """Eight trials with all regularizers, batch norm on; one diverges, one is pruned half-way, one is admitted late."""
    broken, pruned, late, recipe = 5, 2, 9, RECIPES[name]

    def build(number: int) -> RegularizedModule:
        return trial(number, recipe, **({"lr": 1e300} if number == broken else {}))

    ends = Ends(prune={pruned: 2}, admit={1: lambda: {late: build(late)}})
    train_fused({number: build(number) for number in range(8)}, data(), EPOCHS, ends, max_fused)

    assert ends.epochs[broken][-1].end == "diverged"
    assert ends.epochs[broken][-1].age < EPOCHS
    assert ends.epochs[pruned][-1].age == 2
    for number in {*range(8), late} - {broken}:
        last = ends.epochs[number][-1]
        state, metrics, age = alone(name, number, 2 if number == pruned else 0)
        assert age == last.age, number
        assert largest_difference(state, ends.states[number]) < 1e-9, number
        for key, value in last.metrics.items():
            assert value == pytest.approx(metrics[key], abs=1e-9), (number, key)


def test_early_stopping_ends_some_trials_and_judges_them_by_their_best_epoch() -> None:
    trials = {number: trial(number, RECIPES["adamw"], lr=0.05, early_stopping=2.0) for number in range(4)}
    ends = train_fused(trials, data(), 30)
    for number, epochs in ends.epochs.items():
        assert epochs[-1].end == "stopped early", number
        losses = [epoch.metrics["loss/val"] for epoch in epochs]
        assert epochs[-1].result["loss/val"] == min(losses)
        assert losses.index(min(losses)) == len(losses) - 3
        module = trial(number, RECIPES["adamw"], lr=0.05).double()
        module.load_state_dict(ends.states[number])
        validation = data()
        validation.setup()
        inputs, targets = validation.parts["validation"].tensors
        restored = module.eval().loss(module(inputs.double()), targets)
        assert restored.item() == pytest.approx(min(losses), abs=1e-9)


def test_in_float32_the_first_twenty_steps_are_alike() -> None:
    trials = {number: trial(number, RECIPES["adamw"], batch_norm=False) for number in range(8)}
    ends = train_fused(trials, data(), 2, precision="32-true")
    for number in trials:
        module = trial(number, RECIPES["adamw"], batch_norm=False)
        trainer = train_alone(module, data(), 2, precision="32-true")
        assert ends.epochs[number][-1].metrics["loss/objective"] == pytest.approx(
            float(trainer.callback_metrics["loss/objective"]), abs=1e-5
        )


def test_in_bfloat16_fused_and_alone_agree_as_closely_as_it_rounds_and_every_row_counts() -> None:
    """Noise, losses and counts have 32 bits: what remains is the rounding of products and activations to 8 bits."""
    rows = DATASETS["digits"]()
    rows.setup()
    count = len(rows.parts["validation"])
    ends = train_fused({n: trial(n, RECIPES["adamw"]) for n in range(4)}, data(), 2, precision="bf16-mixed")
    for number, epochs in ends.epochs.items():
        trainer = train_alone(trial(number, RECIPES["adamw"]), data(), 2, precision="bf16-mixed")
        alone = {key: float(value) for key, value in trainer.callback_metrics.items()}
        for key in ("loss/objective", "loss/train", "loss/val"):
            assert epochs[-1].metrics[key] == pytest.approx(alone[key], rel=BFLOAT16), (number, key)
        for accuracy in (epochs[-1].metrics["accuracy/val"], alone["accuracy/val"]):
            assert accuracy * count == pytest.approx(round(accuracy * count), abs=1e-3)


class Snapshots(L.Callback):
    """Weights and optimizer state of a trial alone after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []
        self.moments: list[dict[str, dict[str, torch.Tensor]]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        state = trainer.optimizers[0].state
        self.states.append(copy.deepcopy(module.state_dict()))
        self.moments.append({name: copy.deepcopy(state[p]) for name, p in module.named_parameters()})


class Reload(L.Callback):
    """After each epoch, keeps how far the fused trials are from those alone, then sets them to where those are."""

    def __init__(self, alone: list[Snapshots]) -> None:
        self.alone, self.differences = alone, []

    def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
        (cohort,) = population.cohorts
        for number, alone in enumerate(self.alone):
            state = alone.states[cohort.age - 1]
            scale = max(value.abs().max().item() for value in state.values())
            self.differences.append(largest_difference(state, population.state(number)) / scale)
            for name, value in state.items():
                (cohort.params | cohort.buffers)[name].data[number] = value
            for name, moments in alone.moments[cohort.age - 1].items():
                for key in moments.keys() - {"step"}:
                    cohort.optimizer.state[cohort.params[name]][key][number] = moments[key]


@pytest.mark.parametrize(("recipe", "lr"), [(RECIPES["adamw"], 0.1), (RECIPES["sgd"], 0.3)], ids=["adamw", "sgd"])
def test_at_large_rates_every_single_epoch_is_alike(recipe: Recipe, lr: float) -> None:
    """Large rates amplify rounding chaotically, in torch against itself too: so each epoch starts from equal states."""
    alone = [Snapshots() for _ in range(4)]
    for number, snapshots in enumerate(alone):
        trainer = quiet_trainer(3, callbacks=[snapshots])
        trainer.fit(trial(number, recipe, batch_norm=False, lr=lr, weight_decay=0.01), datamodule=data())
    reload = Reload(alone)
    population = Population(data(), 3)
    population.admit({n: trial(n, recipe, batch_norm=False, lr=lr, weight_decay=0.01) for n in range(4)})
    quiet_trainer(-1, callbacks=[reload]).fit(population)
    assert len(reload.differences) == 12
    assert max(reload.differences) < 1e-9


def test_a_pruned_trial_frees_its_memory_and_changes_no_other() -> None:
    recipe = RECIPES["adamw"]
    together = train_fused({number: trial(number, recipe) for number in range(6)}, data(), 3)
    pruned = train_fused(
        {number: trial(number, recipe) for number in range(6)}, data(), 3, Ends(prune={0: 1, 3: 2, 5: 2})
    )
    for number in (1, 2, 4):
        assert largest_difference(together.states[number], pruned.states[number]) < 1e-12


@pytest.mark.parametrize(
    ("name", "batch_norm", "activation"),
    [
        ("adamw", False, "relu"),
        ("adamw", True, "silu"),
        ("sgd", True, "gelu"),
        ("nesterov", False, "tanh"),
        ("radam", True, "relu"),
    ],
)
def test_neighbours_change_no_bit(name: str, batch_norm: bool, activation: str) -> None:
    """Odd widths and batches leave vector registers half full and matrices anywhere in memory."""

    def build(number: int) -> RegularizedModule:
        torch.manual_seed(0)
        network = MODELS["mlp"](64, 10, hidden=(23, 13), norm="batch" if batch_norm else None, activation=activation)
        strengths = {key: values[number] for key, values in STRENGTHS.items()}
        return RegularizedModule(network, strengths, 0.01 * (number + 1), RECIPES[name], seed=3)

    def run(order: Sequence[int], max_fused: int) -> Ends:
        odd = DATASETS["digits"](batch_size=101, seed=3)
        return train_fused(
            {number: build(number) for number in order}, odd, 1, max_fused=max_fused, precision="32-true"
        )

    together = run(range(10), 32)
    for other in (run(range(10), 4), run(range(10), 1), run((7, 2, 5), 32), run((5,), 32)):
        for number, state in other.states.items():
            assert largest_difference(together.states[number], state) == 0.0, number
            assert together.epochs[number] == other.epochs[number]


def test_networks_of_different_shapes_train_side_by_side() -> None:
    def wide(seed: int) -> RegularizedModule:
        torch.manual_seed(seed)
        return RegularizedModule(MODELS["mlp"](64, 10, hidden=(40,)), {"weight_decay": 1.0}, 1e-3, seed=3)

    ends = Ends(admit={0: lambda: {10: wide(1), 11: wide(2)}})
    train_fused({0: trial(0, RECIPES["adamw"]), 1: trial(1, RECIPES["adamw"])}, data(), 3, ends)
    alone = wide(2)
    train_alone(alone, data(), 3)
    assert largest_difference(alone.state_dict(), ends.states[11]) < 1e-9
    assert math.isfinite(ends.epochs[0][-1].metrics["loss/val"])


def test_trials_with_strengths_of_other_keys_share_no_cohort() -> None:
    """One of them would be trained without a strength of its own."""
    torch.manual_seed(0)
    modules = {n: RegularizedModule(MODELS["mlp"](64, 10), strengths) for n, strengths in enumerate(({"l1": 1e-3}, {}))}
    with pytest.raises(ValueError, match="same keys"):
        train_fused(modules, data(), 1)
