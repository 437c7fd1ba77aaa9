"""All that Optuna keeps private is used in one file, and is there in the version that is installed."""

import ast
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import optuna
import pytest
from optuna.pruners import MedianPruner
from optuna.samplers import QMCSampler
from optuna.storages import InMemoryStorage, RDBStorage

import wdsearch
from wdsearch.strategies.optuna_private import judging_steps, relational_storage, study_id, trial_id
from wdsearch.strategies.samplers import make_sampler

PACKAGE = Path(wdsearch.__file__).parent
HOME = PACKAGE / "strategies/optuna_private.py"
NAMES = {
    "_study_id": "optuna.study.Study",
    "_storage": "optuna.study.Study",
    "_trial_id": "optuna.trial.Trial and FrozenTrial",
    "_backend": "optuna.storages._cached_storage._CachedStorage",
    "_CachedStorage": "optuna.storages._cached_storage",
    "_cached_storage": "optuna.storages",
    "_rdb": "optuna.storages",
    "_create_scoped_session": "optuna.storages._rdb.storage",
    "_datetime_start_utc": "optuna.storages._rdb.models.TrialModel",
    "_datetime_complete_utc": "optuna.storages._rdb.models.TrialModel",
    "_fill_storage_url_template": "optuna.storages.RDBStorage",
    "_get_trials": "optuna.storages.RDBStorage and optuna.Study",
    "_find_sample_id": "optuna.samplers.QMCSampler",
    "_n_warmup_steps": "optuna.pruners.PercentilePruner",
    "_interval_steps": "optuna.pruners.PercentilePruner",
}
"""Each private name of Optuna's that wdsearch uses, and what has it."""


def _private_names(path: Path) -> Iterator[str]:
    """Names with an underscore that a file takes from objects or modules, overrides, or gives as keywords."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
            yield from (node.module or "").split(".")
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (
                part for alias in node.names if alias.name.startswith("optuna") for part in alias.name.split(".")
            )


def _used(path: Path) -> set[str]:
    return {name for name in _private_names(path) if name.startswith("_") and not name.startswith("__")}


def _owners() -> dict[str, tuple[object, ...]]:
    """The objects of Optuna's that should have each name."""
    study = optuna.create_study()
    trial = study.ask()
    stored = RDBStorage("sqlite:///:memory:")
    cached = import_module("optuna.storages._cached_storage")
    rdb = import_module("optuna.storages._rdb.storage")
    row = import_module("optuna.storages._rdb.models").TrialModel
    pruner = MedianPruner()
    return {
        "_study_id": (study,),
        "_storage": (study,),
        "_trial_id": (trial, study.trials[0]),
        "_backend": (cached._CachedStorage(stored),),
        "_CachedStorage": (cached,),
        "_cached_storage": (optuna.storages,),
        "_rdb": (optuna.storages,),
        "_create_scoped_session": (rdb,),
        "_datetime_start_utc": (row,),
        "_datetime_complete_utc": (row,),
        "_fill_storage_url_template": (RDBStorage,),
        "_get_trials": (RDBStorage, study),
        "_find_sample_id": (QMCSampler,),
        "_n_warmup_steps": (pruner,),
        "_interval_steps": (pruner,),
    }


def test_the_list_is_what_the_one_file_uses() -> None:
    assert _used(HOME) == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_optuna_has_the_private_name(name: str) -> None:
    reason = f"Optuna {version('optuna')} has no {name} on {NAMES[name]}: mend wdsearch/strategies/optuna_private.py"
    assert all(hasattr(owner, name) for owner in _owners()[name]), reason


def test_no_other_file_uses_a_private_name_of_optunas() -> None:
    others = {path: _used(path) & NAMES.keys() for path in PACKAGE.rglob("*.py") if path != HOME}
    used = {path.relative_to(PACKAGE).as_posix(): sorted(names) for path, names in others.items() if names}
    assert not used, f"call a function of wdsearch.strategies.optuna_private instead: {used}"


def test_keys_are_those_of_the_storage() -> None:
    study = optuna.create_study(storage="sqlite:///:memory:")
    storage = relational_storage(study)
    assert isinstance(storage, RDBStorage)
    assert storage.get_study_id_from_name(study.study_name) == study_id(study)
    trial = study.ask()
    assert storage.get_trial(trial_id(trial)).number == trial.number
    assert trial_id(study.trials[0]) == trial_id(trial)
    assert relational_storage(optuna.create_study(storage=InMemoryStorage())) is None


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_point_of_the_sequence_is_optunas_own() -> None:
    """Optuna counts the points of a study; here each ask names its own."""
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "x": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True),
        "n": optuna.distributions.IntDistribution(1, 9),
    }
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=0.0, params={"x": 0.1, "n": 3}, distributions=space))
    frozen = study.trials[0]
    theirs = QMCSampler(seed=5, scramble=True)
    counted = [theirs.sample_relative(study, frozen, space) for _ in range(4)]
    assert [make_sampler("qmc", {}, 5, slot).sample_relative(study, frozen, space) for slot in range(4)] == counted
    assert make_sampler("qmc", {}, 5, 2).sample_relative(study, frozen, space) == counted[2]


def test_a_median_pruner_judges_at_the_steps_named() -> None:
    assert list(judging_steps(MedianPruner(n_warmup_steps=4, interval_steps=3), 12)) == [4, 7, 10]
    assert list(judging_steps(MedianPruner(), 3)) == [1, 2]
