"""Sources that a study names: whole trials are known by their class, whatever they are called."""

from functools import partial
from typing import Any

import lightning as L
import pytest
import pytorch_lightning as pl
from torch import nn

import wdsearch
from wdsearch.population.user.model_kinds import is_regularized_module
from wdsearch.study.sources import check_model, is_solo


class Own(wdsearch.RegularizedModule):
    """A user's trial."""


class OwnAgain(Own):
    """One more generation."""


def _of_another_library() -> type[L.LightningModule]:
    class RegularizedModule(L.LightningModule):
        """Of the same name, and not ours."""

    class Theirs(RegularizedModule):
        """Built on it."""

    return Theirs


def test_a_trial_is_known_by_its_class_and_not_by_its_name() -> None:
    theirs = _of_another_library()
    assert [is_regularized_module(kind) for kind in (Own, OwnAgain, theirs)] == [True, True, False]
    assert [is_solo(kind) for kind in (Own, OwnAgain, theirs)] == [False, False, True]


class Theirs(L.LightningModule):
    """Complete."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()

    def training_step(self, batch: Any, batch_idx: int) -> None: ...
    def validation_step(self, batch: Any, batch_idx: int) -> None: ...
    def configure_optimizers(self) -> None: ...


class OldName(pl.LightningModule):
    """Of pytorch_lightning; lacks everything."""


def annotated(lr: float) -> Theirs:
    raise AssertionError("it is not to be called")


def unannotated(lr=0.1):  # type: ignore[no-untyped-def]
    return Theirs(lr)


def backbone(lr=0.1):  # type: ignore[no-untyped-def]
    return nn.Sequential(Theirs(lr))


def test_lightning_modules_are_known_however_they_come() -> None:
    ways = [
        OldName,
        Theirs,
        annotated,
        unannotated,
        partial(Theirs, lr=0.2),
        partial(unannotated, 0.2),
        lambda: Theirs(),
    ]
    assert [is_solo(way) for way in ways] == [True] * len(ways)
    assert not is_solo(backbone)
    assert not is_solo(partial(Own, nn.Linear(2, 1)))


class Steps(Own):
    """Overrides what nobody calls."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return 0.0

    def on_train_epoch_start(self) -> None: ...


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Theirs(), "model is a Theirs object; give its class, Theirs"),
        (Own(nn.Linear(2, 1)), "model is a Own object, whose strengths are set already; give its class"),
        (Steps, "Steps overrides training_step, on_train_epoch_start, which nobody calls"),
        (partial(Steps, nn.Linear(2, 1)), "Steps overrides training_step"),
        (OldName, "OldName has no training_step; it must return the loss of a batch"),
    ],
)
def test_what_would_not_be_trained_as_written_is_refused_with_the_remedy(model: Any, said: str) -> None:
    assert any(said in text for _, text in check_model(model))


def test_the_class_itself_builds_no_trial_without_a_network() -> None:
    assert not is_regularized_module(wdsearch.RegularizedModule)
    assert not is_regularized_module("wdsearch.RegularizedModule")
