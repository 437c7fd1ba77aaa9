"""Flags that one can act on: found in real studies that deserve them, and in none that do not."""

from typing import Any

import pytest

import wdsearch
from wdsearch.analysis.advice import flags

STUDY: dict[str, Any] = {
    "data": "digits",
    "model": {"name": "mlp", "init_args": {"hidden": [16]}},
    "budget": {"trials": 3, "epochs": 4},
    "search": {"batch": 3, "sampler": "random", "pruner": "none"},
}


def found(name: str, space: dict[str, Any], **changes: Any) -> dict[str, dict[str, float | str]]:
    study = STUDY | {"study": name, "space": space} | changes
    return {flag.key: flag.values for flag in flags(wdsearch.run(study, progress=False))}


def test_a_decay_that_shrinks_weights_by_a_hundredth_is_inert() -> None:
    raised = found("inert", {"lr": 1e-3, "weight_decay": {"timescale": [50, 200]}})
    assert 0 < float(raised["inert"]["shrinkage"]) < 0.02
    assert float(raised["inert"]["timescale"]) > 50


def test_a_decay_that_forgets_within_an_epoch_is_saturated() -> None:
    raised = found("saturated", {"lr": 1e-2, "weight_decay": {"timescale": [0.05, 0.1]}})
    assert float(raised["saturated"]["timescale_epochs"]) < 0.4
    assert "inert" not in raised


def test_a_winner_at_the_edge_of_the_range_is_named_with_the_range() -> None:
    changes = {"budget": {"trials": 12, "epochs": 4}, "search": {"batch": 12, "sampler": "qmc", "pruner": "none"}}
    raised = found("edge", {"lr": {"low": 1e-6, "high": 1e-3, "log": True}}, **changes)
    assert raised["edge"]["key"] == "lr"
    assert (raised["edge"]["low"], raised["edge"]["high"]) == (1e-6, 1e-3)
    assert float(raised["edge"]["value"]) > 5e-4


@pytest.mark.parametrize(("norm", "raised"), [("batch", True), (None, False)])
def test_weights_before_norm_layers_are_said(norm: str | None, raised: bool) -> None:
    model = {"name": "mlp", "init_args": {"hidden": [16, 16], "norm": norm}}
    values = found(f"norm-{norm}", {"lr": 1e-3, "weight_decay": {"timescale": [0.5, 2]}}, model=model)
    assert ("norm_layers" in values) is raised
    if raised:
        assert 0.8 < float(values["norm_layers"]["share"]) < 1.0


def test_studies_of_which_many_trials_diverge_are_said() -> None:
    values = found("diverging", {"lr": {"choices": [1e-3, 1e30]}}, budget={"trials": 6, "epochs": 4})
    assert 0 < float(values["diverging"]["count"]) < float(values["diverging"]["trials"]) == 6


def test_a_sound_study_raises_no_flag() -> None:
    assert found("sound", {"lr": 3e-3, "weight_decay": {"timescale": [0.5, 2]}, "dropout": 0.1}) == {}
