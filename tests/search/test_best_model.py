"""The best trial as its user gets it: the network with its weights, and a text that trains it again."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console
from rich.table import Table
from support import users_module
from support.studies import STUDY
from support.users_module import Own
from support.zoo import ZooData
from torch import nn
from torch.nn import functional as F

import wdsearch
from wdsearch.cli.tables import recommendation_table
from wdsearch.errors import StudyNotFoundError
from wdsearch.noise import derive_seed
from wdsearch.search.best_model import NoWeightsError, rebuilt_text
from wdsearch.storage.attributes import RECOMMENDATION
from wdsearch.storage.home import Home
from wdsearch.storage.recommendation import recommended_text
from wdsearch.storage.restore import NotStoredError
from wdsearch.study.build import build_data

BRIEF = {"budget": {"trials": 2, "epochs": 2}, "search": {"batch": 2, "sampler": "random", "pruner": "none"}}
SPACE = {"lr": {"low": 1e-3, "high": 1e-1, "log": True}, "weight_decay": {"low": 0.1, "high": 1.0}, "dropout": 0.3}


class Net(nn.Module):
    """Attention, batch norm and dropout of torch, as from a tutorial."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.attention = nn.MultiheadAttention(width, 2, dropout=0.1, batch_first=True)
        self.rest = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8 * width), nn.Dropout(), nn.Linear(8 * width, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x.reshape(-1, 8, 8))
        return self.rest(self.attention(tokens, tokens, tokens)[0])


class Focal(wdsearch.RegularizedModule):
    """A trial with a loss of its own."""

    def __init__(self, width: int = 8, **options: Any) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(40, width), nn.ReLU(), nn.Linear(width, 3)), **options)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nats = F.cross_entropy(outputs, targets, reduction="none")
        return ((1 - (-nats).exp()) ** 2 * nats).mean()


def study(**changes: Any) -> dict[str, Any]:
    return STUDY | BRIEF | {"space": SPACE} | changes


@torch.no_grad()
def loss_on_validation_rows(network: nn.Module, data: L.LightningDataModule) -> float:
    batches = list(data.val_dataloader())
    inputs, targets = (torch.cat([batch[part] for batch in batches]) for part in (0, 1))
    return float(F.cross_entropy(network(inputs), targets))


def test_load_best_is_the_users_own_network_with_the_trials_weights(tmp_path: Path) -> None:
    source = study(model=Net)
    result = wdsearch.run(source, home=tmp_path, progress=False)
    network = wdsearch.load_best("small", home=tmp_path, source=source)
    assert result.best is not None
    assert type(network) is Net
    assert not network.training
    assert [type(layer) for layer in network.rest] == [nn.Flatten, nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert type(network.attention) is nn.MultiheadAttention
    assert network.rest[2].p == network.attention.dropout == 0.3
    data = build_data(wdsearch.load_study(source))
    assert loss_on_validation_rows(network, data) == pytest.approx(result.best.result.metrics["val_loss"], abs=1e-5)
    with pytest.raises(NotStoredError, match=r"own objects \(model\).*wdsearch.load_best\('small', source=...\)"):
        wdsearch.load_best("small", home=tmp_path)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> wdsearch.StudyResult:
    """A study of a network of ours, searched once."""
    space = SPACE | {"early_stopping": 1}
    return wdsearch.run(study(space=space), home=tmp_path_factory.mktemp("named"), progress=False)


def test_the_text_of_a_search_is_stored_and_found_again(named: wdsearch.StudyResult) -> None:
    result = named
    text = recommended_text(result)
    settings = wdsearch.recommendation(result)
    assert (settings["epochs"], settings["steps"], settings["batch_size"]) == (2, 10, 256)
    best_epoch = settings["weights of epoch"]
    assert best_epoch in (1, 2)
    assert f"its weights are those of epoch {best_epoch}" in shown(recommendation_table(settings))
    for part in (
        "EPOCHS = 2",
        "EARLY_STOPPING = 1 ",
        "STEPS_PER_EPOCH = 5",
        f"LR = {settings['optimizer']['lr']!r}",
        "weight_decay=0.0",
    ):
        assert part in text
    (scale,) = settings["timescale"].values()
    rates = 0.5 * sum(1.0 + torch.cos(torch.tensor(torch.pi * step / 10)) for step in range(10))
    assert scale * settings["optimizer"]["lr"] * settings["strengths"]["weight_decay"] * float(rates) == pytest.approx(
        1.0
    )
    stored = result.optuna_study.user_attrs[RECOMMENDATION]
    result.optuna_study.set_user_attr(RECOMMENDATION, stored | {"version": "0.0"})
    again = wdsearch.load_result("small", Home(result.folder.parents[1]))
    assert recommended_text(again) == text, "from the trial, as while the study is running"
    assert rebuilt_text(again) == text, "from the network, as for a study of an earlier version"


def test_load_best_of_a_named_network_needs_the_name_alone(named: wdsearch.StudyResult) -> None:
    assert named.best is not None
    home = named.folder.parents[1]
    network = wdsearch.load_best("small", home=home)
    data = build_data(wdsearch.load_study(study()))
    assert loss_on_validation_rows(network, data) == pytest.approx(named.best.result.metrics["val_loss"], abs=1e-6)
    named.weights.unlink()
    with pytest.raises(
        NoWeightsError, match=r"trial \d, the best of study 'small', are not here: .*best\.pt is missing; copy"
    ):
        wdsearch.load_best("small", home=home)


def test_load_best_says_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFoundError, match="wdsearch run FILE"):
        wdsearch.load_best("small", home=tmp_path)
    Home(tmp_path).open()
    with pytest.raises(StudyNotFoundError, match="there is no study 'small'"):
        wdsearch.load_best("small", home=tmp_path)


def shown(table: Table) -> str:
    """Text of a table in one line."""
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(table)
    return " ".join(console.export_text().split())


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which Trainers write what they write."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_the_text_of_a_users_module_gives_the_trials_numbers(in_folder: Path) -> None:
    result = users_module.searched(in_folder / "home", budget={"trials": 2, "epochs": 2})
    text, names = recommended_text(result), {"data": ZooData()}
    assert "from support.users_module import Own" in text
    exec(text, names)
    assert result.best is not None
    metrics = names["trainer"].callback_metrics  # type: ignore[attr-defined]
    assert {name: float(metrics[name]) for name in ("val_loss", "val_acc")} == {
        name: result.best.result.metrics[name] for name in ("val_loss", "val_acc")
    }
    source = users_module.STUDY | {"data": ZooData(), "model": Own}
    module = wdsearch.load_best("solo", home=in_folder / "home", source=source)
    trained: dict[str, torch.Tensor] = names["module"].state_dict()  # type: ignore[attr-defined]
    assert type(module) is Own
    assert not module.training
    assert all(torch.equal(value, trained[name]) for name, value in module.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_the_text_of_a_trial_with_a_loss_of_its_own_gives_its_numbers(in_folder: Path) -> None:
    source = study(
        model=Focal, data=ZooData(), space=SPACE | {"l1": 1e-3}, trainer={"accelerator": "cpu", "precision": 64}
    )
    result = wdsearch.run(source, home=in_folder / "home", progress=False)
    assert result.best is not None
    names: dict[str, Any] = {"data": ZooData(), "Focal": Focal}
    exec(recommended_text(result), names)
    assert float(names["trainer"].callback_metrics["loss/val"]) == pytest.approx(
        result.best.result.metrics["val_loss"], abs=1e-9
    )
    module = wdsearch.load_best("small", home=in_folder / "home", source=source)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value.double(), names["module"].state_dict()[name].double(), rtol=0, atol=1e-6)
    assert derive_seed(STUDY["seed"], "weights") == wdsearch.recommendation(result)["init_seed"]
