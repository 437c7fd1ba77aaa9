"""A configuration replicated on a fresh seed is that module trained alone by plain Lightning, whatever is beside it."""

import pytest
import torch
from support.training import train_alone

import wdsearch
from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.noise import derive_seed
from wdsearch.population.population import Population
from wdsearch.search import replicate as module_of_replicate
from wdsearch.search.replicate import Replica, replicate, reseeded
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.space import Configuration
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

EPOCHS = 3
STUDY = {
    "study": "again",
    "data": {"name": "digits", "init_args": {"batch_size": 200}, "split_seed": 5},
    "model": {"name": "mlp", "init_args": {"hidden": [12]}},
    "optimizer": {"name": "adamw", "schedule": "cosine"},
    "space": {"weight_decay": {"low": 1e-3, "high": 10, "log": True}, "dropout": {"low": 0.0, "high": 0.5}},
    "budget": {"trials": 4, "epochs": EPOCHS},
    "trainer": {"accelerator": "cpu", "precision": 64},
    "seed": 11,
}
CONFIGURATIONS = {
    "plain": Configuration(1e-3, {"weight_decay": 0.0, "dropout": 0.0}, {}),
    "decayed": Configuration(1e-3, {"weight_decay": 2.0, "dropout": 0.3}, {}),
    "sparse": Configuration(5e-4, {"weight_decay": 0.0, "dropout": 0.2, "l1": 1e-3}, {}),
    "wide": Configuration(1e-3, {"weight_decay": 0.5, "dropout": 0.1}, {"hidden": [20]}),
}


def weights(population: Population, number: int) -> dict[str, float]:
    """Every weight of a trial, as a measure."""
    state = population.state(number)
    return {f"{name}[{i}]": float(x) for name, value in state.items() for i, x in enumerate(value.flatten())}


def replicas(seed: int, *names: str, **changes: object) -> dict[str, Replica]:
    config = wdsearch.load_study(STUDY | changes)
    configurations = {name: CONFIGURATIONS[name] for name in names or CONFIGURATIONS}
    return replicate(config, build_data(config), configurations, seed, measure=weights)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_replica_equals_plain_lightning_with_that_seed(name: str) -> None:
    settings, fresh = CONFIGURATIONS[name], derive_seed(11, "replicate", 2)
    torch.manual_seed(derive_seed(fresh, "weights"))
    network = MODELS["mlp"](64, 10, **{"hidden": [12]} | settings.model)
    recipe = Recipe("adamw", schedule="cosine")
    alone = RegularizedModule(network, settings.strengths, settings.lr, recipe, seed=fresh)
    trainer = train_alone(alone, DATASETS["digits"](batch_size=200, split_seed=5, seed=fresh), EPOCHS)

    replica = replicas(2)[name]
    assert replica.measures == pytest.approx(
        {f"{key}[{i}]": float(x) for key, value in alone.state_dict().items() for i, x in enumerate(value.flatten())},
        abs=1e-9,
    )
    assert (replica.end, replica.epochs) == ("finished", EPOCHS)
    for metric, logged in {"val_loss": "loss/val", "gap": "loss/gap", "val_accuracy": "accuracy/val"}.items():
        assert replica.metrics[metric] == pytest.approx(float(trainer.callback_metrics[logged]), abs=1e-9)


@pytest.mark.parametrize("precision", [32, 64])
def test_a_replica_does_not_depend_on_what_is_beside_it(precision: int) -> None:
    trainer = {"accelerator": "cpu", "precision": precision}
    together = replicas(0, trainer=trainer)
    for name in CONFIGURATIONS:
        assert replicas(0, name, trainer=trainer)[name] == together[name]
    assert replicas(0, "decayed", "sparse", trainer=trainer | {"population": 1})["sparse"] == together["sparse"]


def test_a_fresh_seed_changes_weights_order_and_noise_but_not_the_rows() -> None:
    config = wdsearch.load_study(STUDY)
    data = build_data(config)
    first, second = (reseeded(config, data, seed) for seed in (0, 1))
    assert len({config.seed, first[0].seed, second[0].seed}) == 3
    orders = [next(iter(part.train_dataloader()))[0] for _, part in (first, second)]
    assert not orders[0].equal(orders[1])
    for part in ("train", "validation", "test"):
        assert first[1].parts[part].tensors[0].equal(second[1].parts[part].tensors[0])
    assert data.seed == config.seed, "the study's own data keep their order"
    initial = [replicas(seed, "plain", budget={"trials": 4, "epochs": 1})["plain"].measures for seed in (0, 1)]
    assert initial[0] != initial[1]
    assert replicas(0, "plain")["plain"] == replicas(0, "plain")["plain"]


def test_networks_that_cannot_be_fused_are_replicated_one_by_one() -> None:
    def build(inputs: int, outputs: int) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Unflatten(1, (8, 8)), torch.nn.Flatten(), torch.nn.RReLU(), torch.nn.Linear(inputs, outputs)
        )

    space = {"weight_decay": {"low": 0.1, "high": 1.0}}
    config = wdsearch.load_study(STUDY | {"model": build, "space": space})
    configurations = {str(decay): Configuration(1e-3, {"weight_decay": decay}, {}) for decay in (0.0, 1.0)}
    assert TrialFactory(config, build_data(config)).why_alone({}), "this network is no example any more"
    replicated = replicate(config, build_data(config), configurations, 0)
    assert {one.end for one in replicated.values()} == {"finished"}
    assert replicated["1.0"].measures["norm"] < replicated["0.0"].measures["norm"]


def test_a_training_that_diverges_is_told_and_ends_no_other() -> None:
    config = wdsearch.load_study(STUDY)
    configurations = CONFIGURATIONS | {"broken": Configuration(1e300, {"weight_decay": 0.0, "dropout": 0.0}, {})}
    replicated = replicate(config, build_data(config), configurations, 0)
    assert replicated["broken"].end == "diverged"
    assert all(replicated[name].end == "finished" for name in CONFIGURATIONS)


def test_out_of_memory_fewer_share_a_call_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, shared, trained = replicas(0), [], module_of_replicate._trained

    def short(factory, configurations, count, ends):  # type: ignore[no-untyped-def]
        shared.append(count)
        if count > 1:
            raise torch.OutOfMemoryError("out of memory")
        return trained(factory, configurations, count, ends)

    monkeypatch.setattr(module_of_replicate, "_trained", short)
    assert replicas(0) == expected
    assert shared == [4, 2, 1]


def test_the_watcher_sees_it_grow_and_can_end_it() -> None:
    seen: list[float] = []
    config = wdsearch.load_study(STUDY)
    replicate(config, build_data(config), CONFIGURATIONS, 0, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def end(share: float) -> None:
        if share > 0:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        replicate(config, build_data(config), CONFIGURATIONS, 0, end)
