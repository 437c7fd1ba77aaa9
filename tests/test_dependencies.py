"""All that the package imports is declared in pyproject.toml and pinned in constraints.txt."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "wdsearch").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _name(requirement: str) -> str:
    """A distribution's name as PyPI compares it (PEP 503), without versions and extras."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~;\[ ]", requirement)[0]).lower()


REQUIRED = {_name(requirement) for requirement in PROJECT["dependencies"]}
EXTRAS = {extra: set(map(_name, listed)) for extra, listed in PROJECT["optional-dependencies"].items()}
OPTIONAL = {name for extra, names in EXTRAS.items() if extra != "test" for name in names}
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())


def _modules(nodes: Iterator[ast.AST]) -> set[str]:
    """Names of the packages, by the first word of their import, that are neither ours nor Python's."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"wdsearch"}


@cache
def _distributions() -> dict[str, set[str]]:
    return {module: set(map(_name, names)) for module, names in packages_distributions().items()}


def _distribution(module: str) -> set[str]:
    """Distributions that a module comes from; of one that is not installed here its own name."""
    return _distributions().get(module, {_name(module)})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_import_is_of_a_declared_distribution(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for module in _modules(ast.walk(tree)):
        assert _distribution(module) & (REQUIRED | OPTIONAL), f"declare {module} in pyproject.toml"
    for module in _modules(iter(tree.body)):
        assert _distribution(module) & REQUIRED, f"{module} is imported at the top, and comes with an extra only"


def test_every_required_distribution_is_pinned_to_the_version_that_is_tested() -> None:
    pins = {_name(name): pinned for name, pinned in PINS.items()}
    assert pins.keys() >= REQUIRED
    assert {name: pins[name] for name in REQUIRED} == {name: version(name).partition("+")[0] for name in REQUIRED}


def test_optuna_whose_private_names_are_used_is_bounded() -> None:
    assert "optuna>=5,<6" in PROJECT["dependencies"]
