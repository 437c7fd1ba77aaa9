"""Own networks in a study: by import path, as a class, as an object, as a subclass of RegularizedModule."""

from pathlib import Path

import pytest
import torch
from support.studies import told
from support.zoo import Recurrent, Residual, ZooData
from torch import nn

import wdsearch
from wdsearch.errors import BuildError
from wdsearch.trial.module import RegularizedModule
from wdsearch.types import Scalar

SPACE = {"weight_decay": {"low": 0.01, "high": 3.0, "log": True}, "dropout": {"low": 0.0, "high": 0.5}}
STUDY = {
    "study": "own",
    "space": SPACE,
    "budget": {"trials": 6, "epochs": 4},
    "search": {"batch": 2, "pruner": "none"},
    "trainer": {"accelerator": "cpu"},
}


class Focal(RegularizedModule):
    """An own loss on an own network: the focal loss (Lin et al. 1708.02002)."""

    def __init__(self, focus: float = 2.0, **options: object) -> None:
        super().__init__(Residual(), **options)
        self.focus = focus

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> Scalar:
        missing = 1.0 - outputs.softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return -(missing**self.focus * (1.0 - missing).log()).mean()


def searched(home: Path, model: object, **changes: object) -> wdsearch.StudyResult:
    return wdsearch.run(STUDY | changes | {"data": ZooData(), "model": model}, home=home, progress=False)


@pytest.mark.parametrize(
    "model", [Recurrent, Recurrent(), Residual, Focal], ids=["class", "object", "fused", "subclass"]
)
def test_an_own_network_is_searched_and_max_fused_changes_no_trial(model: object, tmp_path: Path) -> None:
    study = searched(tmp_path / "all", model)
    assert study.counts["complete"] == 6
    assert len({trial.values[0] for trial in study.trials}) == 6
    one = searched(tmp_path / "one", model, trainer={"accelerator": "cpu", "population": 1})
    assert told(one) == told(study)


def test_one_line_says_why_trials_are_not_fused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched(tmp_path, Recurrent)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("trials are trained one after another, for memory (GRU): ") == 1
    searched(tmp_path / "fused", Residual)
    assert "one after another" not in capsys.readouterr().err


def test_arguments_of_an_own_network_are_searched(tmp_path: Path) -> None:
    study = searched(tmp_path, Focal, space=SPACE | {"model.focus": {"choices": [0.0, 1.0, 5.0]}})
    losses = {trial.result.model["focus"]: trial.values[0] for trial in study.trials}
    assert len(losses) > 1
    assert min(losses, key=lambda focus: losses[focus]) == max(losses), "a larger exponent makes the loss smaller"


def test_lazy_layers_get_their_sizes_and_the_same_weights_in_every_trial(tmp_path: Path) -> None:
    def lazy() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.ReLU(), nn.LazyLinear(3))

    study = searched(tmp_path, lazy)
    again = searched(tmp_path / "again", lazy)
    assert study.counts["complete"] == 6
    assert told(again) == told(study)


def test_a_network_that_takes_no_batch_is_refused_with_its_shapes(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"fails on a batch of shapes \(32, 5, 8\) and \(32,\): RuntimeError"):
        searched(tmp_path, lambda: nn.Linear(3, 3))
