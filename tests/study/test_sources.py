"""What a study names: whole trials are known by their class, whatever they are called."""

import lightning as L

import wdsearch
from wdsearch.study.modules import is_regularized_module
from wdsearch.study.sources import is_solo


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


def test_the_class_itself_builds_no_trial_without_a_network() -> None:
    assert not is_regularized_module(wdsearch.RegularizedModule)
    assert not is_regularized_module("wdsearch.RegularizedModule")
