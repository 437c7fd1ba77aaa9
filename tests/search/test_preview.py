"""Findings of `validate` by building: sizes, and what of own data and networks would fail in training."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console
from support.studies import yaml_free
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from wdsearch.cli.overviews import study_overview
from wdsearch.datasets import DATASETS
from wdsearch.errors import BuildError
from wdsearch.search.preview import Preview, preview
from wdsearch.study.file import StudyFileError
from wdsearch.study.load import load_study
from wdsearch.trial.recipe import Recipe

STUDIES = Path(__file__).parents[2] / "studies"


def shown(found: Preview) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(*study_overview(found, "wdsearch run a.yaml"), sep="\n")
    return captured.get()


def previewed(**sections: Any) -> Preview:
    return preview(yaml_free() | sections)


def test_the_sizes_are_those_of_the_data_and_the_baselines_network() -> None:
    found = preview(STUDIES / "mnist1d.yaml")
    assert found.rows == {"train": 3200, "validation": 800, "test": 1000}
    assert (found.inputs, found.outputs, found.batches, found.steps) == (40, 10, 32, 1280)
    layers = [(40, 256), (256, 256), (256, 10)]
    assert found.decayed == sum(ins * outs for ins, outs in layers)
    assert found.parameters == found.decayed + sum(outs for _, outs in layers)
    assert found.rungs == (10, 20)


def test_a_timescale_is_shown_as_the_decay_that_it_is_at_the_studys_rate() -> None:
    found = preview(STUDIES / "mnist1d.yaml")
    factors = Recipe(schedule="cosine").factors(1280)
    assert found.decay_at(0.01) == pytest.approx(1 / (1e-3 * sum(factors) * 0.01))
    assert "timescale 0.01 to 10 │ log    │ at 0 │ in training lengths; λ 156 to 0.156 at lr 0.001" in shown(found)


def test_the_overview_names_every_part_of_the_study() -> None:
    space = {
        "weight_decay": {"low": 0.0, "high": 1.0},
        "gradient_clip": {"low": 0.1, "high": 10, "log": True, "off": True},
        "input_noise": {"low": 0.0, "high": 1.0, "step": 0.25},
        "l1": 0.5,
        "model.hidden": {"choices": [[8], [4, 4]]},
    }
    goals = {"maximize": ["val_accuracy"], "constraints": {"gap": {"max": 0.1}}}
    search = {"sampler": {"name": "tpe", "n_startup_trials": 3}, "pruner": "none", "batch": 5}
    text = shown(
        previewed(space=space, objective=goals, search=search, model={"name": "mlp", "init_args": {"hidden": [8]}})
    )
    for part in (
        "x is sound: 1 trial of 1 epoch, and the baseline",
        "digits: 1,077 train, 360 validation, 360 test rows; 64 features; 10 classes; 11 batches an epoch",
        "mlp: 610 parameters, 592 of them decay",
        "maximize val_accuracy; gap ≤ 0.1",
        "tpe (n_startup_trials 3), 5 trials asked at a time",
        "none: every trial trains to the end",
        "0 to 1 │ linear        │      │ λ; timescale ∞ to 90.9 at lr 0.001",
        "0.1 to 10 │ log           │ at ∞ │ gradient norm",
        "steps of 0.25",
        "0.5 (fixed)",
        "[8] | [4, 4] │ choices",
        "next  wdsearch run a.yaml",
    ):
        assert part in text, text


def test_timescales_that_erase_the_weights_are_cut_before_training_or_refused() -> None:
    shown = previewed(space={"weight_decay": {"timescale": [0.01, 10]}})
    assert any("searched from 0.0918 to 10" in text for text in shown.warnings)
    with pytest.raises(StudyFileError, match=r"weight_decay\.timescale runs from 0\.01 to 0\.05.*reach beyond 0\.0918"):
        previewed(space={"weight_decay": {"timescale": [0.01, 0.05]}})


# -- what users bring ----------------------------------------------------------------------------------------------


class Plain(L.LightningDataModule):
    """As Lightning's documentation has it."""

    def __init__(self, loader: Any = None, evaluation: bool = False) -> None:
        super().__init__()
        self.rows = TensorDataset(torch.randn(60, 5), torch.arange(60) % 3)
        self.loader = loader
        if evaluation:
            self.train_eval_dataloader = lambda: DataLoader(self.rows, batch_size=20)

    def train_dataloader(self) -> Any:
        return self.loader() if self.loader else DataLoader(self.rows, batch_size=20, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.rows, batch_size=20)


def broken() -> Any:
    raise OSError("the disk is gone")


def linear(width: int = 64) -> nn.Module:
    return nn.Linear(width, 10)


class Small(nn.Module):
    """Takes what the data do not say."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"data": Plain(broken, True)}, r"data: Plain.train_dataloader\(\) fails: OSError: the disk is gone"),
        (
            {"data": {"class_path": "torch.nn.Identity"}},
            r"data: torch.nn.Identity gives Identity\(\); it must be a lightn",
        ),
        (
            {"data": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 3, "out_features": -1}}},
            r"Linear\(in_features=3, out_features=-1\) cannot be b",
        ),
        (
            {"model": {"class_path": "builtins.dict"}},
            r"model: builtins.dict gives \{\}; it must be a torch.nn.modules.module",
        ),
        (
            {"model": {"class_path": "torch.nn.Linear", "init_args": {"in_features": "x"}}},
            r"torch.nn.Linear\(in_features='x'",
        ),
        (
            {"model": lambda: linear(32)},
            r"fails on a batch of shapes \(\d+, 64\) and \(\d+,\): Runtime",
        ),
        ({"model": lambda: nn.Linear(64, 3)}, r"the network fails on a batch"),
        (
            {"data": "diabetes", "model": lambda: nn.Linear(10, 3)},
            r"gives 3 numbers a row, the targets are 1; for a regres",
        ),
        ({"task": "regression"}, r"task is regression, and Digits holds data for classification; leave task out"),
        (
            {"trainer": {"accelerator": "mps"}},
            r"trainer \{accelerator: mps, devices: 1, precision: 32\} cannot be had on this",
        ),
    ],
)
def test_what_would_fail_in_training_is_said_before(sections: dict[str, Any], text: str) -> None:
    with pytest.raises(BuildError, match=text):
        previewed(**sections)


def test_a_network_that_takes_what_the_data_do_not_say_is_refused() -> None:
    class Shapeless(DATASETS["digits"]):  # type: ignore[name-defined,misc]
        @property
        def outputs(self) -> int:
            raise AttributeError("no outputs here")

    with pytest.raises(
        BuildError, match="model: it takes inputs and outputs from the data, but AttributeError: no outputs"
    ):
        previewed(data=Shapeless(), model=Small)


def test_a_network_in_double_precision_is_tried_in_it() -> None:
    assert previewed(model=linear, trainer={"precision": 64, "accelerator": "cpu"}).parameters == 650


def test_a_loaded_study_can_be_previewed_as_well() -> None:
    config = load_study(yaml_free())
    assert preview(config).config is config
