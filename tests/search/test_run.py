"""A study end to end: the same trials however many are fused, exact budgets, and what is stored of it."""

import json
from collections import OrderedDict
from pathlib import Path
from statistics import median

import optuna
import pytest
import torch
from mlflow import MlflowClient
from support.shortened import concluded
from support.studies import STUDY, searched, told

import wdsearch
from wdsearch.search.loop import TrialsFailedError
from wdsearch.storage.home import Home
from wdsearch.storage.results import load_result
from wdsearch.study.build import build_data


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> wdsearch.StudyResult:
    """One study, searched once for all tests that only look at it."""
    with concluded("_report", "_optunas_plots"):
        return searched(tmp_path_factory.mktemp("done"))


@pytest.mark.parametrize("population", [1, 4, "auto"])
def test_how_many_are_fused_changes_no_trial(done: wdsearch.StudyResult, tmp_path: Path, population: object) -> None:
    """Parameters and results to the last bit; `auto` is the same study run twice."""
    again = searched(tmp_path, trainer={"accelerator": "cpu", "population": population})
    assert told(again) == told(done)
    assert again.baseline == done.baseline


def test_the_budget_counts_complete_and_pruned_and_is_exact(done: wdsearch.StudyResult) -> None:
    assert done.counts["complete"] + done.counts["pruned"] + done.counts["diverged"] == 14
    assert done.counts["running"] == done.counts["failed"] == 0
    assert done.counts["pruned"] > 0
    assert done.baseline is not None
    assert set(done.baseline.strengths.values()) == {0.0, float("inf")}


def test_running_again_runs_nothing_again_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    first = told(searched(tmp_path))
    assert told(searched(tmp_path)) == first
    larger = searched(tmp_path, budget={"trials": 20, "epochs": 8})
    assert told(larger)[:14] == first
    assert len(told(larger)) == 20


def test_the_result_is_that_of_one_state_of_the_weights(done: wdsearch.StudyResult) -> None:
    """The stored weights of the best trial give its stored validation loss, in a plain module."""
    best = done.best
    assert best is not None
    data = build_data(wdsearch.load_study(STUDY))
    layers = {"linear1": torch.nn.Linear(64, 16), "activation1": torch.nn.ReLU(), "output": torch.nn.Linear(16, 10)}
    network = torch.nn.Sequential(OrderedDict(flatten=torch.nn.Flatten(), **layers))
    state = torch.load(done.weights)["state_dict"]
    weights = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    network.load_state_dict({name: value for name, value in weights.items() if "rate" not in name})
    inputs, targets = data.parts["validation"].tensors
    loss = torch.nn.functional.cross_entropy(network(inputs), targets)
    assert loss.item() == pytest.approx(best.values[0], abs=1e-5)
    assert best.result.metrics["val_loss"] == best.values[0]
    assert best.result.metrics["gap"] == pytest.approx(best.values[0] - best.result.metrics["train_loss"], abs=1e-6)


def test_mlflow_holds_the_study_its_trials_and_their_curves(done: wdsearch.StudyResult) -> None:
    client = MlflowClient(f"sqlite:///{done.folder.parent.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    assert f"/experiments/{experiment.experiment_id}/runs" in str(done.link)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = [run.data.tags["wdsearch.kind"] for run in runs]
    assert (kinds.count("study"), kinds.count("baseline"), kinds.count("trial")) == (1, 1, 14)
    parent = next(run for run in runs if run.data.tags["wdsearch.kind"] == "study")
    there = [artifact.path for artifact in client.list_artifacts(parent.info.run_id)]
    assert there == ["gap.png", "plots", "report"]
    by_key = {run.data.tags["wdsearch.key"]: run for run in runs}
    for trial in done.trials:
        run = by_key[f"trial-{trial.number}"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["wdsearch.state"] == trial.state
        assert {"seed", "version.torch", "version.optuna"} <= run.data.tags.keys()
        assert run.inputs.dataset_inputs[0].dataset.name == "digits"
        assert float(run.data.params["lr"]) == trial.result.lr
        assert ("log10_weight_decay" in run.data.params) == (trial.result.strengths["weight_decay"] > 0)
        for name in ("train_loss", "val_loss", "gap"):
            assert run.data.metrics[name] == pytest.approx(trial.result.metrics[name])
        for name in (
            "loss/train",
            "loss/val",
            "loss/gap",
            "loss/objective",
            "accuracy/train",
            "accuracy/val",
            "accuracy/gap",
        ):
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            assert sorted(steps) == list(range(1, trial.result.epochs + 1)), name


@pytest.mark.parametrize(
    "search",
    [
        {"sampler": "random", "pruner": "none"},
        {"sampler": "qmc", "pruner": "median"},
        {"sampler": "cmaes", "pruner": "hyperband"},
        {"sampler": {"name": "gp", "n_startup_trials": 4}, "pruner": "halving"},
    ],
    ids=str,
)
def test_every_sampler_and_pruner_finds_its_way(tmp_path: Path, search: dict) -> None:
    result = searched(tmp_path, search={"batch": 3} | search, budget={"trials": 8, "epochs": 4})
    assert sum(result.counts.values()) == 8
    assert result.best is not None
    params = [tuple(t.params.values()) for t in result.optuna_study.trials]
    assert len(set(params)) == 8


def test_the_median_pruner_ends_what_is_worse_than_the_median(tmp_path: Path) -> None:
    pruner = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 2, "interval_steps": 1}
    search = {"batch": 2, "sampler": "random", "pruner": pruner}
    found = searched(tmp_path, search=search, budget={"trials": 16, "epochs": 6}).optuna_study.get_trials()
    pruned = [trial for trial in found if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        step = trial.last_step
        done = [
            other
            for other in found
            if other.state.name == "COMPLETE" and other.datetime_complete < trial.datetime_complete
        ]
        assert min(trial.intermediate_values.values()) > median(other.intermediate_values[step] for other in done)


def test_a_choice_of_widths_makes_cohorts_by_shape(tmp_path: Path) -> None:
    space = STUDY["space"] | {"model.hidden": {"choices": [[8], [16, 8]]}}
    result = searched(tmp_path, space=space, budget={"trials": 8, "epochs": 2})
    assert {tuple(trial.result.model["hidden"]) for trial in result.trials} == {(8,), (16, 8)}


def test_several_goals_give_a_pareto_front_and_constraints_are_kept(tmp_path: Path) -> None:
    both = searched(tmp_path, objective={"minimize": ["val_loss", "gap"]}, budget={"trials": 6, "epochs": 2})
    assert both.best is not None
    assert both.best.number in both.pareto
    limited = searched(
        tmp_path, study="limited", objective={"minimize": "val_loss", "constraints": {"gap": {"max": -10.0}}}
    )
    assert limited.best is None


def test_regression_is_judged_by_r2(tmp_path: Path) -> None:
    changes = {"data": "diabetes", "objective": {"maximize": "val_r2"}, "budget": {"trials": 4, "epochs": 6}}
    result = searched(tmp_path, **changes)
    assert result.best is not None
    metrics = result.best.result.metrics
    assert result.best.values[0] == metrics["val_r2"]
    target = wdsearch.recommendation(result)["target"]
    assert metrics["val_rmse"] == pytest.approx(metrics["val_loss"] ** 0.5 * target["scale"][0], rel=1e-5)
    assert 100 < target["mean"][0] < 200, "in the target's own unit"


def test_own_objects_stand_for_import_paths(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 10))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layers(inputs)

    from wdsearch.datasets import DATASETS

    search = {"batch": 4, "sampler": optuna.samplers.RandomSampler(seed=0), "pruner": optuna.pruners.NopPruner()}
    changes = {"model": Net(), "data": DATASETS["digits"](batch_size=200), "search": search}
    result = searched(tmp_path, **changes, budget={"trials": 4, "epochs": 2})
    assert result.counts["complete"] == 4


def test_when_no_trial_can_be_built_the_error_says_why(tmp_path: Path) -> None:
    def broken(**_: object) -> torch.nn.Module:
        calls.append(1)
        # to check the study, for its dropout, its own loss, four to try the network, for norm layers, for memory, the baseline
        if len(calls) > 10:
            raise RuntimeError("no such layer")
        return torch.nn.Linear(64, 10)

    calls: list[int] = []
    with pytest.raises(TrialsFailedError, match="RuntimeError: no such layer"):
        searched(tmp_path, model=broken)
    assert load_result("small", Home(tmp_path)).counts["failed"] == 12, "8 beside the baseline, then 4"


def test_a_recommendation_says_what_to_pass_to_torch(done: wdsearch.StudyResult) -> None:
    found = wdsearch.recommendation(done)
    assert json.loads(json.dumps(found)) == found
    assert found["optimizer"]["lr"] == done.best.result.lr
    assert set(found["strengths"]) | set(found["off"]) == {"weight_decay", "dropout", "early_stopping"}
    for key in found["strengths"]:
        assert found["torch"][key]
