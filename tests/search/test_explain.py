"""A study explained: kept seed by seed, from what is stored of it, and for a linear model as ridge and lasso have it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree

import lightning as L
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from sklearn.linear_model import Lasso, Ridge
from torch import nn

import wdsearch
from wdsearch.analysis.claims import CLAIMS
from wdsearch.analysis.outcomes import Claim, Explanation, explanation_from
from wdsearch.errors import StudyNotFoundError
from wdsearch.search import explain as explaining
from wdsearch.search.explain import ExplainError
from wdsearch.search.replicate import replicate
from wdsearch.storage.attributes import EXPLANATION
from wdsearch.storage.home import Home
from wdsearch.storage.restore import NotStoredError
from wdsearch.storage.results import load_result
from wdsearch.storage.studies import StudyChangedError
from wdsearch.study.build import build_data

STUDY = {
    "study": "small",
    "data": {"name": "digits", "init_args": {"batch_size": 300}},
    "model": {"name": "mlp", "init_args": {"hidden": [8]}},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "space": {
        "lr": {"low": 3e-3, "high": 3e-2, "log": True},
        "weight_decay": {"timescale": [0.1, 10], "off": True},
        "dropout": {"low": 0.0, "high": 0.5},
        "gradient_clip": {"low": 1.0, "high": 5.0, "off": True},
    },
    "budget": {"trials": 3, "epochs": 3},
    "trainer": {"accelerator": "cpu"},
}
SEEDS = 6


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a searched study."""
    folder = tmp_path_factory.mktemp("searched")
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow sets it where a model is registered, and leaves it
    wdsearch.run(STUDY, home=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def explained(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Explanation]:
    """The same, explained."""
    folder = copied(searched, tmp_path_factory.mktemp("explained"))
    return folder, wdsearch.explain("small", home=folder, seeds=SEEDS, progress=False)


def copied(home: Path, place: Path) -> Path:
    copytree(home, place, dirs_exist_ok=True)
    return place


def claim(found: Explanation, key: str) -> Claim:
    return next(one for one in found.claims if one.key == key)


# -- what is varied ------------------------------------------------------------------------------------------------


def test_each_arm_varies_its_own_strengths_alone_and_every_cell_has_every_seed(
    explained: tuple[Path, Explanation],
) -> None:
    folder, explanation = explained
    best = load_result("small", Home(folder)).best
    assert best is not None
    winner = {"weight_decay": 0.0, "l1": 0.0} | best.result.strengths
    arms = {"weight_decay": {"weight_decay"}, "l1": {"weight_decay", "l1"}, "dropout": {"weight_decay", "dropout"}}
    for outcome in explanation.outcomes:
        changed = {key for key, value in outcome.strengths.items() if value != winner[key]}
        assert changed <= arms.get(outcome.arm, {"weight_decay"}), outcome
        assert outcome.lr == best.result.lr or outcome.arm == "lr"
        assert outcome.arm != "l1" or outcome.strengths["weight_decay"] == 0.0
    for arm, count in {"weight_decay": 11, "l1": 7, "dropout": 16}.items():
        cells = {repr(sorted(one.strengths.items())) for one in explanation.outcomes if one.arm == arm}
        assert len(cells) == count
        assert sum(one.arm == arm for one in explanation.outcomes) == count * SEEDS
    decays = {one.strengths["weight_decay"] for one in explanation.outcomes if one.arm == "weight_decay"}
    assert 0.0 in decays
    assert claim(explanation, "gap").evidence["reference"] in decays
    assert winner["weight_decay"] in decays
    assert {one.key for one in explanation.claims} == set(CLAIMS)


def test_the_smallest_decay_does_nearly_nothing_and_the_largest_too_much(
    explained: tuple[Path, Explanation],
) -> None:
    curve = claim(explained[1], "complexity").curves["norm"]
    assert curve.x[0] == 0.0
    assert curve.mean[1] > 0.95 * curve.mean[0]
    assert curve.mean[-1] < 0.2 * curve.mean[0]


def test_l1_makes_zeros_and_decay_does_not(explained: tuple[Path, Explanation]) -> None:
    """Exact zeros come from the proximal step, so that this holds of any network."""
    judged = claim(explained[1], "zeros")
    assert judged.verdict == "supported", judged
    assert judged.evidence["zeros_l1"] > 0.5
    assert judged.evidence["zeros_decay"] == 0.0


# -- what is kept --------------------------------------------------------------------------------------------------


def test_it_is_kept_in_the_storage_in_a_file_and_in_mlflow(explained: tuple[Path, Explanation]) -> None:
    folder, explanation = explained
    result = load_result("small", Home(folder))
    stored = explanation_from(result.optuna_study.user_attrs[EXPLANATION])
    assert stored.as_dict() == explanation.as_dict(), "as texts: an effect that was not measured is NaN"
    text = (result.folder / "explain.json").read_text()
    assert explanation_from(json.loads(text, parse_constant=pytest.fail)).as_dict() == explanation.as_dict()
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    parent = next(run for run in runs if run.data.tags["wdsearch.kind"] == "study")
    assert [one.path for one in client.list_artifacts(parent.info.run_id, "explain")] == ["explain/explain.json"]
    assert parent.info.status == "FINISHED"


def test_a_second_call_trains_nothing_and_more_seeds_train_only_those(
    explained: tuple[Path, Explanation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, explanation = copied(explained[0], tmp_path), explained[1]
    trained: list[int] = []

    def counted(config, data, configurations, seed, watch):  # type: ignore[no-untyped-def]
        trained.append(seed)
        return replicate(config, data, configurations, seed, watch)

    monkeypatch.setattr(explaining, "replicate", counted)
    assert wdsearch.explain("small", home=folder, seeds=SEEDS, progress=False).as_dict() == explanation.as_dict()
    assert trained == []
    more = wdsearch.explain("small", home=folder, seeds=SEEDS + 1, progress=False)
    assert trained == [SEEDS]
    assert [one for one in more.outcomes if one.seed < SEEDS] == list(explanation.outcomes)


@pytest.mark.slow
def test_killed_it_goes_on_with_the_same_outcomes(
    explained: tuple[Path, Explanation], searched: Path, tmp_path: Path
) -> None:
    """Ctrl-C in the middle, then SIGKILL, then to the end: as if nothing had happened."""
    home = copied(searched, tmp_path / "wdsearch")  # where the tests keep studies
    # not beside the home, whose name is the package's: Python would look for it there
    command = [sys.executable, "-m", "wdsearch.cli", "explain", "small", "--json", "--seeds", str(SEEDS)]
    place = tmp_path / "elsewhere"
    place.mkdir()
    codes = []
    for number, seeds in ((signal.SIGINT, 1), (signal.SIGKILL, 2)):
        endless = [*command, "--seeds", "99"]
        process = subprocess.Popen(endless, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and len(kept(home)) < seeds:
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=60)
        codes.append((process.returncode, errors))
    assert codes[0][0] == 130, codes[0][1]
    assert "trainings are kept; continue with the same command" in codes[0][1]
    assert codes[1][0] == -signal.SIGKILL
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True, timeout=300)
    assert explanation_from(json.loads(done.stdout)).as_dict() == explained[1].as_dict()


def kept(home: Path) -> list[str]:
    attributes = load_result("small", Home(home)).optuna_study.user_attrs
    return [name for name in attributes if name.startswith("outcomes.2:")]


# -- from what is stored of a study -----------------------------------------------------------------------------------


def test_modules_and_tables_beside_the_study_file_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text(
        "from torch import nn\n\n\ndef build(inputs, outputs):\n    return nn.Linear(inputs, outputs)\n"
    )
    (tmp_path / "own.yaml").write_text(
        "study: own\ndata: {name: digits, init_args: {batch_size: 500}}\nmodel: {class_path: beside_it.build}\n"
        "space: {weight_decay: {low: 0.1, high: 1}}\nbudget: {trials: 2, epochs: 1}\ntrainer: {accelerator: cpu}\n"
    )
    wdsearch.run(tmp_path / "own.yaml", home=tmp_path / "home", progress=False)
    for name in ("own.yaml",):
        (tmp_path / name).unlink()
    explanation = wdsearch.explain("own", home=tmp_path / "home", seeds=1, progress=False)
    assert (claim(explanation, "dropout").verdict, claim(explanation, "dropout").reason) == (
        "undetermined",
        "no_dropout",
    )
    assert claim(explanation, "gap").reason == "seeds"


def test_own_objects_must_be_given_again(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((200, 4)).astype(np.float32)
    data = wdsearch.ArraysData(rows, (rows[:, 0] > 0).astype(np.int64))
    own = STUDY | {"study": "own", "data": data, "space": {"weight_decay": {"low": 0.1, "high": 1.0}}}
    wdsearch.run(own, home=tmp_path, progress=False)
    with pytest.raises(NotStoredError, match=r"own objects \(data\).*source="):
        wdsearch.explain("own", home=tmp_path, progress=False)
    assert wdsearch.explain("own", source=own, home=tmp_path, seeds=1, progress=False).seeds == 1
    other = own | {"data": wdsearch.ArraysData(rows[::-1].copy(), (rows[:, 0] > 0).astype(np.int64))}
    with pytest.raises(StudyChangedError, match="data"):
        wdsearch.explain("own", source=other, home=tmp_path, seeds=1, progress=False)


class Alone(L.LightningModule):
    """A user's LightningModule: λ is its own affair."""

    def __init__(self, inputs: int, outputs: int, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.network, self.weight_decay = nn.Linear(inputs, outputs), weight_decay

    def training_step(self, batch: tuple, index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: tuple, index: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1, weight_decay=self.weight_decay)


def test_a_lightning_module_of_its_own_a_missing_study_and_an_unfinished_one_are_refused(
    searched: Path, tmp_path: Path
) -> None:
    own = STUDY | {"study": "alone", "model": Alone, "space": {"weight_decay": {"low": 0.0, "high": 0.1}}}
    own["budget"] = {"trials": 1, "epochs": 1}
    wdsearch.run(own, home=tmp_path, progress=False)
    with pytest.raises(ExplainError, match="LightningModule as its model"):
        wdsearch.explain("alone", source=own, home=tmp_path, progress=False)
    with pytest.raises(StudyNotFoundError, match="small"):
        wdsearch.explain("smal", home=searched, progress=False)
    with pytest.raises(ExplainError, match="at least 1"):
        wdsearch.explain("small", home=searched, seeds=0, progress=False)


# -- a linear model ------------------------------------------------------------------------------------------------

ROWS, FEATURES, RATE, EPOCHS = 80, 10, 0.05, 150


def collinear() -> tuple[np.ndarray, np.ndarray]:
    """Ten features that are five, twice, nearly; half of them matter, and noise."""
    random = np.random.default_rng(4)
    half = random.standard_normal((ROWS, FEATURES // 2))
    rows = np.concatenate([half, half + 0.5 * random.standard_normal(half.shape)], axis=1)
    return rows.astype(np.float32), (rows @ random.standard_normal(FEATURES) + 4 * random.standard_normal(ROWS))


@pytest.fixture(scope="module")
def ridge(tmp_path_factory: pytest.TempPathFactory) -> tuple[Explanation, dict[str, np.ndarray]]:
    """A linear regression with l2, explained, and its standardised rows."""
    rows, targets = collinear()
    data = wdsearch.ArraysData(rows, targets, batch_size=ROWS, validation=0.4, test=0.1)
    study = {
        "study": "ridge",
        "data": data,
        "model": {"name": "mlp", "init_args": {"hidden": []}},
        "optimizer": {"name": "sgd", "lr": RATE},
        "space": {"l2": {"low": 0.05, "high": 0.2, "log": True}},
        "budget": {"trials": 3, "epochs": EPOCHS},
        "search": {"pruner": "none"},
        "trainer": {"accelerator": "cpu", "precision": 64},
    }
    home = tmp_path_factory.mktemp("ridge")
    wdsearch.run(study, home=home, progress=False)
    explanation = wdsearch.explain("ridge", source=study, home=home, progress=False)
    parts = build_data(wdsearch.load_study(study)).parts
    known = {
        f"{of} {part}": parts[part].tensors[i].double().numpy()
        for part in ("train", "validation")
        for i, of in enumerate("xy")
    }
    return explanation, known


def loss_of(model: Ridge | Lasso, known: dict[str, np.ndarray], part: str) -> float:
    return float(np.mean((model.predict(known[f"x {part}"]).reshape(-1, 1) - known[f"y {part}"]) ** 2))


@pytest.mark.slow
def test_along_l2_norm_and_losses_are_those_of_ridge(ridge: tuple[Explanation, dict[str, np.ndarray]]) -> None:
    """scikit-learn's Ridge(alpha = nλ), at every λ > 0 of the grid that has converged, to 0.1 %."""
    explanation, known = ridge
    assert explanation.decay == "l2"
    compared = 0
    for outcome in (one for one in explanation.outcomes if one.arm == "weight_decay"):
        decay = outcome.strengths["l2"]
        model = Ridge(alpha=decay * len(known["x train"])).fit(known["x train"], known["y train"].ravel())
        assert outcome.measures["norm"] == pytest.approx(float(np.linalg.norm(model.coef_)), rel=1e-3)
        assert outcome.metrics["val_loss"] == pytest.approx(loss_of(model, known, "validation"), rel=1e-3)
        compared += 1
    assert compared == 11 * 10


@pytest.mark.slow
def test_the_claims_say_of_a_linear_model_what_ridge_and_lasso_say(
    ridge: tuple[Explanation, dict[str, np.ndarray]],
) -> None:
    explanation, known = ridge
    count, off = len(known["x train"]), Ridge(alpha=1e-9).fit(known["x train"], known["y train"].ravel())
    curve = claim(explanation, "optimum").curves["val_loss"]
    paths = [Ridge(alpha=x * count).fit(known["x train"], known["y train"].ravel()) for x in curve.x if x]
    losses = [loss_of(model, known, "validation") for model in paths]
    optimum, start = claim(explanation, "optimum"), loss_of(off, known, "validation")
    assert min(losses) < 0.97 * start, "the data are such that ridge helps, up to a point"
    assert min(losses) < losses[-1]
    assert optimum.verdict == "supported"
    assert optimum.effect == pytest.approx(min(losses) - start, rel=0.01)
    assert optimum.evidence["beyond"] == pytest.approx(losses[-1] - min(losses), rel=0.01)

    simpler, reference = claim(explanation, "complexity"), claim(explanation, "complexity").evidence["reference"]
    at = Ridge(alpha=reference * count).fit(known["x train"], known["y train"].ravel())
    scales = [np.linalg.norm(model.coef_) / model.predict(known["x validation"]).std() for model in (off, at)]
    share = float(scales[1] / scales[0]) - 1  # the norm by the scale of the outputs: a mere scaling is no simpler
    assert (simpler.verdict, simpler.effect) == ("supported", pytest.approx(share, rel=0.01))
    gap = [loss_of(model, known, "validation") for model in (off, at)]
    assert claim(explanation, "gap").verdict == "supported"
    assert gap[1] < gap[0]
    for key in ("collinearity", "updates"):
        assert claim(explanation, key).reason == "not_measured", (
            "a single unit has nothing to be alike with, and is one layer"
        )

    zeros = claim(explanation, "zeros")
    for l1, share in zip(zeros.curves["zeros_l1"].x, zeros.curves["zeros_l1"].mean, strict=True):
        lasso = Lasso(alpha=max(l1, 1e-3) / 2, max_iter=100_000).fit(known["x train"], known["y train"].ravel())
        assert share == pytest.approx(float(np.mean(lasso.coef_ == 0.0)), abs=1e-9), l1
