"""A user's own LightningDataModule, with nothing of wdsearch in it: order, gap, augmentation, and what cannot be."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from support.processes import command
from support.studies import told
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset, default_collate

import wdsearch
from wdsearch.errors import BuildError
from wdsearch.trial.loaders import batches_of, train_eval_loader

STUDY: dict[str, Any] = {
    "study": "own",
    "space": {"weight_decay": {"low": 0.01, "high": 3.0, "log": True}, "dropout": {"low": 0.0, "high": 0.5}},
    "budget": {"trials": 6, "epochs": 4},
    "search": {"batch": 2, "pruner": "halving"},
    "trainer": {"accelerator": "cpu"},
}


def rows(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, generator=generator)
    return TensorDataset(inputs, (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1).long())


class Noisy(Dataset):
    """Rows that change each time they are drawn, by all three generators."""

    def __init__(self, plain: TensorDataset) -> None:
        self.plain = plain

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int) -> Any:
        inputs, target = self.plain[index]
        return inputs + 0.1 * torch.randn(6) + random.random() * 0.1 + float(np.random.rand()) * 0.1, target


class Plain(L.LightningDataModule):
    """As from a tutorial."""

    def __init__(self, wrap: Callable[[TensorDataset], Any] = lambda plain: plain, **options: Any) -> None:
        super().__init__()
        self.wrap, self.options = wrap, options

    def setup(self, stage: str | None = None) -> None:
        self.train, self.validation = self.wrap(rows(90, 0)), rows(50, 1)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=32, **{"shuffle": True} | self.options)

    def val_dataloader(self) -> Any:
        return DataLoader(self.validation, batch_size=50)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3))


def searched(home: Path, data: L.LightningDataModule, **changes: Any) -> wdsearch.StudyResult:
    return wdsearch.run(STUDY | {"data": data, "model": network} | changes, home=home, progress=False)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: Plain(), marks=pytest.mark.slow),
        pytest.param(lambda: Plain(Noisy), marks=pytest.mark.slow),
        lambda: Plain(Noisy, num_workers=1, drop_last=True),
    ],
    ids=["shuffled", "augmented", "workers"],
)
def test_order_and_augmentation_depend_on_seed_and_epoch_alone(
    data: Callable[[], L.LightningDataModule], tmp_path: Path
) -> None:
    study = searched(tmp_path / "all", data())
    torch.rand(5)
    random.random()
    one = searched(tmp_path / "one", data(), trainer={"accelerator": "cpu", "population": 1})
    assert told(one) == told(study)
    other = searched(tmp_path / "other", data(), seed=1)
    assert other.baseline.metrics != study.baseline.metrics


def test_every_row_comes_once_an_epoch_in_another_order() -> None:
    data = Plain()
    data.setup()
    own = RandomSampler(data.train, generator=torch.Generator())
    for loader in (data.train_dataloader(), DataLoader(data.train, batch_size=32, sampler=own)):
        first, again, next_epoch = (
            torch.cat([batch[0] for batch in batches_of(loader, 3, epoch)]) for epoch in (0, 0, 1)
        )
        assert first.equal(again)
        assert not first.equal(next_epoch)
        assert sorted(first[:, 0].tolist()) == sorted(next_epoch[:, 0].tolist())
        assert len(first) == 90


def test_the_gap_is_measured_on_a_fixed_subset_as_large_as_the_validation_set(tmp_path: Path) -> None:
    data = Plain()
    data.setup()
    (first,), (second,) = ([inputs for inputs, _ in train_eval_loader(data)] for _ in range(2))
    assert first.equal(second)
    assert len(first) == 50
    known = {tuple(row) for row in data.train.tensors[0].tolist()}
    assert {tuple(row) for row in first.tolist()} <= known
    study = searched(tmp_path, data)
    module = wdsearch.RegularizedModule(network(), {"weight_decay": 0.0, "dropout": 0.0})
    assert study.best is not None
    module.load_state_dict(torch.load(study.weights)["state_dict"], strict=False)
    module.eval()
    (batch,) = train_eval_loader(data)
    loss = nn.functional.cross_entropy(module(batch[0]), batch[1])
    assert study.best.result.metrics["train_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_data_that_augment_themselves_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched(tmp_path, Plain(Noisy))
    assert "Give the data a train_eval_dataloader() without augmentation" in " ".join(capsys.readouterr().err.split())
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("own").experiment_id], "tags.`wdsearch.kind` = 'trial'")
    assert {run.data.tags.get("wdsearch.gap") for run in runs} == {"augmented"}


class Stream(IterableDataset):
    def __len__(self) -> int:
        return 90

    def __iter__(self) -> Any:
        return iter(rows(90, 0))


class Hooked(Plain):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


class Listed(Plain):
    def val_dataloader(self) -> Any:
        return [super().val_dataloader()] * 2


class Broken(Plain):
    def setup(self, stage: str | None = None) -> None:
        raise FileNotFoundError("data.csv")


class Tripled(Plain):
    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=32, collate_fn=lambda many: default_collate(many)[0])


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        while True:
            yield from rows(90, 0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            Plain(lambda _: Endless(), shuffle=False),
            "do not end within 30 batches: give .* a __len__, the length of an",
        ),
        (
            Hooked(),
            "Hooked.on_after_batch_transfer.. is not called where trials share their batches; change batches in",
        ),
        (Listed(), "Listed.val_dataloader.. gives 2 loaders; it must give one"),
        (Broken(), "Broken cannot be set up: FileNotFoundError: data.csv"),
        (Tripled(), "a batch is .inputs, targets., "),
    ],
    ids=["endless", "hook", "list", "setup", "no targets"],
)
def test_what_cannot_be_is_said(
    data: L.LightningDataModule, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wdsearch.trial.loaders.MOST_COUNTED", 30)
    with pytest.raises(BuildError, match=said):
        searched(tmp_path, data)


OWN = """
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Network(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(6, width), nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.body(x))))


class Data(L.LightningDataModule):
    def setup(self, stage=None):
        made = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
        rows = TensorDataset(made, (made.sum(1) > 0).long() + (made[:, 0] > 1).long())
        self.train, self.validation = torch.utils.data.random_split(rows, [200, 100], torch.Generator().manual_seed(1))

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=200, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.validation, batch_size=100)
"""
SCRIPT = '''
"""A user's own script: plain Lightning, torch's own optimizer, and what `wdsearch best --format yaml` printed."""
import lightning as L, torch, yaml
from own import Data, Network

found = yaml.safe_load(open("best.yaml"))


class Trial(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(found["init_seed"])
        self.network = Network(**found["model"])

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self):
        decayed = [self.network.body.weight, self.network.head.weight]
        others = [self.network.body.bias, self.network.norm.weight, self.network.norm.bias, self.network.head.bias]
        decay = found["strengths"]["weight_decay"]
        groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=found["optimizer"]["lr"])
        steps = self.trainer.estimated_stepping_batches
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)]


from torch import nn
trainer = L.Trainer(max_epochs=found["epochs"], accelerator="cpu", logger=False, enable_checkpointing=False,
                    enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Trial(), datamodule=Data())
print(float(trainer.callback_metrics["val_loss"]))
'''


@pytest.mark.slow
def test_what_is_recommended_gives_the_trials_result_in_a_users_own_script(tmp_path: Path) -> None:
    """One batch an epoch, so that the order of the rows, which the script draws anew, only changes the rounding: 1e-5."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "script.py").write_text(SCRIPT)
    study = {
        "study": "whole",
        "data": {"class_path": "own.Data"},
        "model": {"class_path": "own.Network"},
        "optimizer": {"name": "adamw", "schedule": "cosine"},
        "space": {
            "lr": {"low": 1e-3, "high": 1e-2, "log": True},
            "weight_decay": {"timescale": [0.1, 3]},
            "model.width": {"choices": [4, 8]},
        },
        "budget": {"trials": 6, "epochs": 40},
        "search": {"batch": 3},
        "trainer": {"accelerator": "cpu"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))

    done = command("run", "study.yaml", "--home", "home", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    text = command("best", "whole", "--format", "yaml", "--home", "home", folder=tmp_path).stdout
    (tmp_path / "best.yaml").write_text(text)
    alone = [sys.executable, "script.py"]
    said = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300).stdout
    found = float(said.strip().splitlines()[-1])
    assert found == pytest.approx(yaml.safe_load(text)["val_loss"], abs=1e-5)
