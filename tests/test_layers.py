"""The law of the tree: imports only point up the list of layers, and what is dangerous or heavy has one home."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "wdsearch"
LAYERS = [
    "messages errors types noise files groups plugins",
    "tasks",
    "regularizers optimizers models strategies",
    "trial",
    "population datasets",
    "study",
    "storage",
    "analysis",
    "report",
    "tracking",
    "search",
    "launch",
    "cli",
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
FILES = sorted(PACKAGE.rglob("*.py"))
TABLES = {"regularizers", "optimizers", "models", "datasets", "tracking", "launch/engines"}
"""Packages whose `__init__.py` is a table of their entries, and so imports them."""
HOMES = {
    "mlflow": {"tracking/mlflow_client.py", "tracking/mlflow_store.py"},
    "yaml": {"study/file.py"},
    "rich": {"cli/", "search/progress.py", "datasets/_progress.py"},
    "plotly": {"report/to_html.py"},
    "optuna.storages._": {"strategies/optuna_private.py"},
}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own_modules(path: Path) -> set[Path]:
    """Files of the package that a file imports; of `from folder import module` the module alone."""
    names = {name for name in imports(path) if name.startswith("wdsearch.")}
    modules = {name: PACKAGE.parent / f"{name.replace('.', '/')}.py" for name in names}
    packages = {name: PACKAGE.parent / name.replace(".", "/") / "__init__.py" for name in names}
    files = {file for file in modules.values() if file.exists()}
    tables = {name for name, file in packages.items() if file.exists() and inside(file.parent) in TABLES}
    return files | {
        packages[name]
        for name in tables
        if not any(module.startswith(f"{name}.") and modules[module].exists() for module in modules)
    }


def layer(path: Path) -> str:
    """A file's folder in the package; the name of a flat file."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def inside(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=inside)
def test_imports_only_point_up(path: Path) -> None:
    for other in own_modules(path) - {PACKAGE / "__init__.py"}:
        assert layer(other) == layer(path) or RANK[layer(other)] < RANK[layer(path)], f"it imports {inside(other)}"


NAMED_AS_TEXT = {"plugins.py", "launch/workers.py", "launch/emit.py"}
"""Files with names of modules above them: of tables that are imported when they are asked for, and of programs to be started."""


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=inside)
def test_modules_above_are_not_named_as_text(path: Path) -> None:
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    modules = [
        text.split(".")[1] for text in texts if isinstance(text, str) and re.fullmatch(r"wdsearch(\.\w+)+", text)
    ]
    above = {name for name in modules if RANK.get(name, -1) > RANK[layer(path)]}
    assert not above or inside(path) in NAMED_AS_TEXT, above


def test_no_two_files_import_each_other_in_a_circle() -> None:
    unsorted = {path: own_modules(path) - {path, PACKAGE / "__init__.py"} for path in FILES}
    del unsorted[PACKAGE / "__init__.py"]
    while free := [path for path, others in unsorted.items() if not others & unsorted.keys()]:
        for path in free:
            del unsorted[path]
    assert not unsorted, f"in circles, or above one: {sorted(map(inside, unsorted))}"


@pytest.mark.parametrize("module", HOMES)
def test_what_is_heavy_or_may_change_is_imported_at_home_only(module: str) -> None:
    for path in FILES:
        own = any(inside(path).startswith(home) for home in HOMES[module])
        named = any(
            name.startswith(module) if module.endswith("_") else name.split(".")[0] == module for name in imports(path)
        )
        assert own or not named, f"{inside(path)} imports {module}"


MARKUP = re.compile(r"\[/?(?:bold|dim|italic|reverse|red|green|yellow|blue|magenta|cyan|white)(?: [a-z ]+)?\]|\[/\]")


def test_terminal_markup_is_written_at_home_only() -> None:
    for path in FILES:
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        marked = [text for text in texts if isinstance(text, str) and MARKUP.search(text)]
        own = any(inside(path).startswith(home) for home in HOMES["rich"])
        assert own or not marked, f"{inside(path)}: {marked}"


def identifiers(path: Path) -> set[str]:
    """Names in a file's code, and its texts of one word, such as keys and variables of the environment."""
    words: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        values = (getattr(node, name, None) for name in ("id", "attr", "arg", "name", "asname", "module", "value"))
        words |= {value for value in values if isinstance(value, str) and not re.search(r"\s", value)}
    return words


def test_only_tracking_names_the_server_that_records_go_to() -> None:
    for path in FILES:
        named = {word for word in identifiers(path) if "mlflow" in word.lower()}
        assert layer(path) == "tracking" or not named, f"{inside(path)} names {named}"


def test_only_optimizers_and_population_name_the_trial_axis() -> None:
    for path in FILES:
        if layer(path) not in ("optimizers", "population"):
            shapes = re.findall(r'\[[\w.]+, f?"([^"]*)"\]', path.read_text())
            assert not any(re.search(r"\bK\b", shape) for shape in shapes), inside(path)


def test_a_package_imports_nothing_but_its_table() -> None:
    for path in PACKAGE.rglob("*/__init__.py"):
        text, package = path.read_text(), inside(path.parent)
        assert ast.get_docstring(ast.parse(text)), f"{package} has no promise"
        top = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not top or package in TABLES | {"report/texts"}, package


def test_folders_files_and_functions_stay_small() -> None:
    assert len([entry for entry in PACKAGE.iterdir() if entry.name != "__pycache__"]) <= 24
    assert len(LAYERS) <= 15
    for folder in {path.parent for path in FILES}:
        assert len(list(folder.glob("*.py"))) <= 20, folder
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 45, f"{path}: {node.name}"
