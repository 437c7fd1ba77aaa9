"""Dropout that acts nowhere or in part, or that the baseline keeps, is said; `best` recommends none that did nothing."""

from pathlib import Path

import pytest
import torch
from support.fuzzed_networks import ConstantDropout, DroppedAttention, FuzzData, RateOfLayer
from torch import Tensor, nn
from torch.nn import functional as F

import wdsearch
from wdsearch.search.preview import preview
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import load_study
from wdsearch.study.space import baseline
from wdsearch.trial.copying import copied
from wdsearch.trial.dropout_in_use import DropoutInUse, dropout_in_use, dropout_notes, inert
from wdsearch.trial.module import RegularizedModule

BATCH = torch.randn(8, 6), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


class Memory(nn.Module):
    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.memory = nn.LSTM(6, 6, layers, dropout=0.3 if layers > 1 else 0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.memory(x.unsqueeze(1))[0][:, -1]


class DropPath(nn.Module):
    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1) > self.drop_prob) if self.training else x


class Own(nn.Dropout):
    """A subclass, which stays as it is."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training) * 1.0


class TorchsAttention(nn.Module):
    """Calls the function behind `nn.MultiheadAttention`, within which torch drops."""

    def forward(self, x: Tensor) -> Tensor:
        x, matrix = x.unsqueeze(0), torch.eye(6)
        return F.multi_head_attention_forward(
            *(x, x, x, 6, 2, torch.cat([matrix] * 3), None, None, None, False, 0.3, matrix, None),
            training=self.training,
        )[0].squeeze(0)


class Idle(nn.Linear):
    """Has a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.drop = nn.Dropout(0.1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


def in_use(layer: nn.Module, **strengths: float) -> tuple[RegularizedModule, DropoutInUse]:
    def build() -> RegularizedModule:
        return RegularizedModule(nn.Sequential(layer, nn.Linear(6, 3)), strengths)

    module = build()
    return module, dropout_in_use(module, BATCH)


ENCODER = ("0.self_attn.attention_dropout", "0.dropout1", "0.dropout", "0.dropout2")
CONSTANT, OWN = "0 (ConstantDropout)", "0 (Own)"
ATTENTION = "0 (TorchsAttention): attention with dropout 0.3"


@pytest.mark.parametrize(
    ("layer", "searched", "kept"),
    [
        (nn.Dropout(0.1), DropoutInUse(("0",)), DropoutInUse(("0",))),
        (RateOfLayer(), DropoutInUse(("0.drop",)), DropoutInUse(("0.drop",))),
        (DroppedAttention(), DropoutInUse(("0.drop",)), DropoutInUse(())),
        (nn.TransformerEncoderLayer(6, 2, 8), DropoutInUse(ENCODER), DropoutInUse(ENCODER)),
        (
            ConstantDropout(),
            DropoutInUse((), (CONSTANT,)),
            DropoutInUse((), others=(f"{CONSTANT}: F.dropout with 0.2",)),
        ),
        (Own(0.4), DropoutInUse((), (OWN,)), DropoutInUse((), others=(f"{OWN}: F.dropout with 0.4",))),
        (Own(0.0), DropoutInUse(()), DropoutInUse(())),
        (TorchsAttention(), *[DropoutInUse((), others=(ATTENTION,))] * 2),
        (Memory(), *[DropoutInUse((), others=("0.memory (LSTM): dropout 0.3",))] * 2),
        (Memory(1), DropoutInUse(()), DropoutInUse(())),
        (DropPath(), *[DropoutInUse((), others=("0 (DropPath): 0.1",))] * 2),
        (DropPath(0.0), DropoutInUse(()), DropoutInUse(())),
        (Idle(), DropoutInUse(()), DropoutInUse(())),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_all_that_drops_is_found(layer: nn.Module, searched: DropoutInUse, kept: DropoutInUse) -> None:
    assert in_use(copied(layer), weight_decay=0.2)[1] == kept
    assert in_use(layer, dropout=0.2)[1] == searched


def test_nothing_is_left_in_the_network() -> None:
    module, _ = in_use(RateOfLayer(), dropout=0.2)
    assert not any(layer._forward_hooks or "applied_as" in vars(layer) for layer in module.modules())


def test_notes_say_what_a_search_of_dropout_does_not_reach() -> None:
    assert dropout_notes(*in_use(nn.Dropout(0.1), dropout=0.2)) == []
    assert dropout_notes(*in_use(Memory(1), weight_decay=0.2)) == []
    nowhere, kept = dropout_notes(*in_use(Memory(), dropout=0.2))
    assert nowhere.startswith("dropout acts on nothing here")
    assert (
        kept
        == "the search of dropout does not reach 0.memory (LSTM): dropout 0.3; the unregularized baseline keeps it too"
    )
    (kept,) = dropout_notes(*in_use(nn.Dropout(0.1), weight_decay=0.2))
    assert kept == "dropout is not searched, and trials keep 0 (dropout 0.1); the unregularized baseline keeps it too"


def test_a_strength_that_acts_on_nothing_is_inert() -> None:
    assert inert(*in_use(Memory(), dropout=0.2, l1=0.1)) == ["dropout"]
    assert inert(*in_use(Idle(), dropout=0.2)) == ["dropout"]
    assert inert(*in_use(RateOfLayer(), dropout=0.2)) == []
    assert inert(*in_use(ConstantDropout(), dropout=0.2)) == []


def test_best_recommends_no_dropout_that_did_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Net(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(5, 6), Memory(), nn.Linear(6, 3))

    space = {"weight_decay": {"low": 0.1, "high": 1.0}, "dropout": {"low": 0.1, "high": 0.5}}
    study = {"study": "nowhere", "space": space, "budget": {"trials": 2, "epochs": 1}, "data": FuzzData(), "model": Net}
    result = wdsearch.run(study | {"trainer": {"accelerator": "cpu"}}, home=tmp_path, progress=False)
    settings = wdsearch.recommendation(result)
    assert "dropout" not in settings["strengths"]
    assert not any("dropout" in key for key in settings["torch"])
    assert settings["without effect"] == ["dropout"]
    assert "dropout acts on nothing here" in " ".join(capsys.readouterr().err.split())


def test_functions_that_drop_are_listed_and_count_as_dropout() -> None:
    class Net(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(5, 6), ConstantDropout(), nn.Linear(6, 3))

    space = {"weight_decay": {"low": 0.1, "high": 1.0}, "dropout": {"low": 0.1, "high": 0.5}}
    study = {
        "study": "functions",
        "space": space,
        "budget": {"trials": 2, "epochs": 1},
        "data": FuzzData(),
        "model": Net,
    }
    shown = preview(study | {"trainer": {"accelerator": "cpu"}})
    assert [(layer.name, layer.strengths) for layer in shown.dropout_layers] == [
        ("1 (ConstantDropout), by a function", ("dropout",))
    ]
    assert shown.warnings == ()
    for model, drops in ((Net, True), (lambda: nn.Linear(5, 3), False)):
        config = load_study(study | {"model": model})
        assert TrialFactory(config, FuzzData()).drops(baseline(config)) is drops
