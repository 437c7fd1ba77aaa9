"""Find the right weight decay jointly with the other regularizers, and see what it did.

    import wdsearch

    result = wdsearch.run("studies/mnist1d.yaml", ["budget.trials=8"])
    print(wdsearch.recommendation(result))

Each command of the command line is one call here: `run`, `load_result`, `recommendation`, `plot_gap`, `explain`; `load_best`
is the best trial's network with its weights. Names are imported when they are used, for torch and lightning take seconds.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wdsearch.datasets import ArrayDataModule, Arrays, ArraysData, ImageFolder, TableData
    from wdsearch.population.population import Population
    from wdsearch.regularizers import REGULARIZERS
    from wdsearch.report.gap_plot import plot_gap
    from wdsearch.search.best_model import load_best
    from wdsearch.search.explain import explain
    from wdsearch.search.run import run
    from wdsearch.storage.recommendation import recommendation
    from wdsearch.storage.results import StudyResult, load_result
    from wdsearch.study.load import StudyConfig, StudyFileError, load_study
    from wdsearch.tasks.task import Task
    from wdsearch.trial.batches import Inputs
    from wdsearch.trial.module import RegularizedModule
    from wdsearch.trial.recipe import Recipe

# unless this is set before its first call, MKL rounds a matrix product by its address in memory (oneMKL Developer Guide,
# "Obtaining Numerically Reproducible Results")
os.environ.setdefault("MKL_CBWR", "AUTO")

_HOMES = {
    "StudyConfig": "study.schema",
    "StudyFileError": "study.file",
    "load_study": "study.load",
    "ArrayDataModule": "datasets",
    "Arrays": "datasets",
    "ArraysData": "datasets",
    "ImageFolder": "datasets",
    "TableData": "datasets",
    "Inputs": "trial.batches",
    "RegularizedModule": "trial.module",
    "explain": "search.explain",
    "plot_gap": "report.gap_plot",
    "Population": "population.population",
    "Recipe": "trial.recipe",
    "REGULARIZERS": "regularizers",
    "StudyResult": "storage.results",
    "load_best": "search.best_model",
    "load_result": "storage.results",
    "recommendation": "storage.recommendation",
    "run": "search.run",
    "Task": "tasks.task",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wdsearch' has no attribute {name!r}")
    return getattr(import_module(f"wdsearch.{_HOMES[name]}"), name)
