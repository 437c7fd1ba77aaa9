"""Imports only point up the list of layers; two files import mlflow, one reads YAML."""

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "wdsearch"
LAYERS = [
    "types errors tracking.cpu_share noise storage.provenance study.annotations cli.completion trial.batches population.module_attributes groups study.fields report.figures report.texts analysis.one_standard_error",
    "study.cron",
    "report.to_html report.to_image",
    "study.file",
    "datasets.columns",
    "tasks trial.dropout trial.loaders datasets.examine",
    "regularizers",
    "trial.recipe models datasets",
    "study.schema study.import_path",
    "strategies.pruners",
    "storage.optuna_tables",
    "strategies.samplers study.sources",
    "study.catalog",
    "study.json_schema",
    "study.scaffold",
    "study.space",
    "study.check_space",
    "study.check",
    "study.load",
    "trial.module",
    "optimizers.stacked population.memory population.step_statistics trial.result",
    "trial.diagnostics",
    "population.cohort",
    "population.fused population.looped population.checkpoint",
    "population.population population.fusibility",
    "study.build",
    "trial.parameters",
    "study.factory",
    "search.preview analysis.outcomes search.replicate",
    "analysis.bootstrap analysis.design analysis.strength_range",
    "analysis.evidence",
    "analysis.verdicts",
    "analysis.claims",
    "population.user_module",
    "storage.slots",
    "storage.leases storage.launches storage.schedule_claims tracking.spool",
    "tracking.mlflow_view",
    "storage.database",
    "storage.home storage.patience",
    "storage.check",
    "storage.results",
    "search.status analysis.advice report.study_charts analysis.trend",
    "report.importance_charts report.claim_charts report.sweep_charts search.best_model",
    "search.export",
    "tracking.tracker report.plots",
    "tracking.mlflow_store",
    "cli.terminal tracking.mlflow_server",
    "cli.overviews tracking.description report.sentences",
    "report.page",
    "report.optuna_page report.write",
    "search.conclude",
    "tracking.mlflow_client",
    "tracking.delivery",
    "search.worker",
    "search.loop",
    "search.interruption",
    "storage.restore",
    "search.run",
    "search.work search.explain",
    "launch.engines",
    "launch.workers",
    "cli.status",
    "launch.sweeps launch.study_folder",
    "launch.scheduler",
    "launch.emit",
    "cli.explanation",
    "cli.begin cli.workers",
    "cli.app",
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "import" in path.read_text()]


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            folder = PACKAGE.parent / node.module.replace(".", "/")
            modules = [alias.name for alias in node.names if (folder / f"{alias.name}.py").exists()]
            found |= {f"{node.module}.{module}" for module in modules} or {node.module}
    return found


def layer(path: Path) -> str:
    return named(path.relative_to(PACKAGE).with_suffix("").parts)


def named(parts: Sequence[str]) -> str:
    """The entry of the list for a module: its own, else its package's."""
    own = ".".join(parts[:2])
    return own if own in RANK else parts[0]


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=str)
def test_imports_only_point_up(path: Path) -> None:
    own = layer(path)
    assert own in RANK, f"{own} is not in the list of layers"
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "wdsearch" and rest and (other := named(rest)) != own:
            assert RANK[other] < RANK[own] or own.startswith("cli.app"), f"{own} imports {name}"


def test_two_files_import_mlflow_and_one_reads_yaml() -> None:
    users = {
        module: {layer(p) for p in FILES if any(n.split(".")[0] == module for n in imports(p))}
        for module in ("mlflow", "yaml")
    }
    assert users["mlflow"] == {"tracking.mlflow_client", "tracking.mlflow_store"}
    assert users["yaml"] <= {"study.file", "cli.app"}, "cli only writes it"


def test_files_and_functions_stay_small() -> None:
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 45, f"{path}: {node.name}"
