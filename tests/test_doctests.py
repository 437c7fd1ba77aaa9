"""Runs the examples in docstrings, and checks that public functions have one."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import wdsearch

PACKAGE = Path(wdsearch.__file__).parent
SHOWN: tuple[str, ...] = (
    *("tasks", "noise", "groups", "models", "datasets", "strategies.samplers", "strategies.pruners"),
    *("trial", "regularizers", "optimizers", "population", "plugins"),
    *("analysis", "report", "launch", "cli"),
    *("tracking", "study", "storage", "files"),
)
"""Packages, or modules, of which every public function has an example, but for those of `NEED_MORE`."""
_OUTCOMES = "the outcomes of a whole design; `gap` shows how a claim is tested"
_STUDY = "a study in a storage"
_MLFLOW = "MLflow, which takes seconds to be imported and to make its store"
_COMMAND = "a terminal; the help of a command ends in an example"
_COMMANDS = {
    "app": ("run", "best", "plot", "explain", "ui", "report", "status", "sync"),
    "begin": ("init", "validate", "list_names", "schema"),
    "workers": ("work", "launch", "stop", "logs", "schedule", "trend", "check"),
}
NEED_MORE: dict[str, str] = {
    **{f"cli.{module}.{name}": _COMMAND for module, names in _COMMANDS.items() for name in names},
    "cli.app.main": _COMMAND,
    "cli.completion.study_names": _STUDY,
    "cli.explanation.trend_lines": _STUDY,
    "cli.main": _COMMAND,
    "cli.overviews.parameter_overview": "a study's data and network",
    "cli.overviews.study_overview": "a study's data and network",
    "cli.status.show_status": _STUDY,
    "cli.status.status_record": _STUDY,
    "cli.storage_check.storage_lines": _STUDY,
    "cli.tables.conclusion": _STUDY,
    "cli.tables.status_table": _STUDY,
    "cli.tables.summary_table": _STUDY,
    "launch.scheduler.serve": "a scheduler, which runs until Ctrl-C",
    "launch.scheduler.serve_once": "a scheduler and its storage",
    "launch.study_folder.scheduled": "a study file with a schedule",
    "launch.sweeps.winners": _STUDY,
    "launch.workers.launch": _STUDY,
    "launch.workers.launched": _STUDY,
    "launch.workers.logs": _STUDY,
    "launch.workers.stop": _STUDY,
    "report.sweep_charts.best_text": "a sweep, as `trend` reads it",
    "report.sweep_charts.range_text": "a sweep, as `trend` reads it",
    "storage.recommendation.recommended_text": _STUDY,
    "storage.training_steps.step_texts": "a trial and the facts of its training",
    "analysis.advice.flags": _STUDY,
    "analysis.claims.bell": _OUTCOMES,
    "analysis.claims.claims_of": _OUTCOMES,
    "analysis.claims.collinearity": _OUTCOMES,
    "analysis.claims.complexity": _OUTCOMES,
    "analysis.claims.dropout": _OUTCOMES,
    "analysis.claims.gradients": _OUTCOMES,
    "analysis.claims.optimum": _OUTCOMES,
    "analysis.claims.updates": _OUTCOMES,
    "analysis.claims.zeros": _OUTCOMES,
    "analysis.importance.importances": _STUDY,
    "analysis.outcomes.explained_trial": _STUDY,
    "analysis.outcomes.explanation_of": _STUDY,
    "analysis.trend.is_finished": _STUDY,
    "analysis.trend.sweeps_of": _STUDY,
    "analysis.trend.trend": _STUDY,
    "analysis.trend.trend_in": _STUDY,
    "report.claim_charts.claim_chart": _STUDY,
    "report.claim_charts.claim_charts": _STUDY,
    "report.gap_plot.plot_gap": _STUDY,
    "report.importance_charts.importance_chart": _STUDY,
    "report.importance_charts.interaction_chart": _STUDY,
    "report.optuna_page.write_optuna_page": _STUDY,
    "report.page.body": _STUDY,
    "report.sentences.answer": _STUDY,
    "report.sentences.comparison": _STUDY,
    "report.sentences.settings_shown": _STUDY,
    "report.study_charts.chosen_strength": _STUDY,
    "report.study_charts.gap_chart": _STUDY,
    "report.study_charts.loss_of": _STUDY,
    "report.study_charts.path_chart": _STUDY,
    "report.sweep_charts.date": "a family of sweeps in a storage",
    "report.sweep_charts.sweeps_chart": "a family of sweeps in a storage",
    "report.sweep_charts.verdict_sentences": "a family of sweeps in a storage",
    "report.write.write_report": _STUDY,
    "storage.recommendation.recommendation": _STUDY,
    "storage.recommendation.store_recommendation": _STUDY,
    "tracking.deliver_backlog": _STUDY,
    "tracking.delivery.deliver": _MLFLOW,
    "tracking.delivery.sync": _MLFLOW,
    "tracking.mlflow_client.warm_up": _MLFLOW,
    "tracking.mlflow_server.mlflow_server": _MLFLOW,
    "tracking.mlflow_store.find_page": _MLFLOW,
    "tracking.mlflow_store.make_store": _MLFLOW,
    "tracking.reopen_tracker": _STUDY,
    "tracking.report.log_report": _STUDY,
    "tracking.report.report": _STUDY,
    "tracking.study_page": _STUDY,
    "population.checkpoint.read_checkpoint": "cohorts in training",
    "population.checkpoint.write_checkpoint": "cohorts in training",
    "population.fusibility.slow_when_fused": "a network with large convolutions",
    "population.fusibility.why_alone": "several trials and a batch; takes seconds",
    "trial.diagnostics.diagnose": "a trial after training, and measurements of its steps",
}
"""Functions that a few lines cannot show, and what they need."""
LATER = {*wdsearch.__all__} - {
    *("ArrayDataModule", "Arrays", "ArraysData", "ImageFolder", "TableData", "Task"),
    *("Inputs", "Population", "Recipe", "RegularizedModule", "load_result", "load_study"),
}
"""Public names of `wdsearch` that have no example yet."""


class Documented(NamedTuple):
    """A function, class or method: its module and its name in there, and what its docstring says."""

    module: str
    name: str
    is_function: bool
    docstring: str

    @property
    def full_name(self) -> str:
        """The name within the package: `analysis.effects.effect`."""
        return f"{self.module}.{self.name}"


def _documented(path: Path) -> Iterator[Documented]:
    """The functions and classes of a file, and the methods of these; read, not imported, for some load torch."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    module = ".".join(part for part in parts if part != "__init__")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            is_function = isinstance(node, ast.FunctionDef)
            yield Documented(module, node.name, is_function, ast.get_docstring(node) or "")
        if isinstance(node, ast.ClassDef):
            methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
            for method in methods:
                yield Documented(module, f"{node.name}.{method.name}", False, ast.get_docstring(method) or "")


DOCUMENTED = [documented for path in sorted(PACKAGE.rglob("*.py")) for documented in _documented(path)]
EXAMPLES = {documented.full_name: documented for documented in DOCUMENTED if ">>>" in documented.docstring}
PUBLIC = [
    documented.full_name
    for documented in DOCUMENTED
    if documented.is_function
    and not any(part.startswith("_") for part in documented.full_name.split("."))
    and any(f"{documented.module}.".startswith(f"{shown}.") for shown in SHOWN)
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_says(name: str) -> None:
    documented = EXAMPLES[name]
    module = importlib.import_module(f"wdsearch.{documented.module}")
    example = doctest.DocTestParser().get_doctest(
        documented.docstring, dict(vars(module)), name, module.__file__, lineno=0
    )
    report: list[str] = []
    failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append).failed
    assert not failed, "".join(report)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_function_has_an_example_or_a_reason(name: str) -> None:
    assert (name in EXAMPLES) != (name in NEED_MORE)


def test_reasons_are_given_for_functions_that_there_are() -> None:
    assert NEED_MORE.keys() <= set(PUBLIC)


@pytest.mark.parametrize("public", wdsearch.__all__)
def test_a_public_name_has_an_example_or_is_listed_as_lacking_one(public: str) -> None:
    home = wdsearch._HOMES[public]
    shown = [name for name in EXAMPLES if name.startswith(f"{home}.") and public in name.split(".")]
    assert bool(shown) != (public in LATER), f"{public} is in LATER only as long as it has no example"
