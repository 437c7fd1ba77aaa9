"""Every key that is stored on a study or a trial stands in one file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import wdsearch
from wdsearch.storage import attributes

PACKAGE = Path(wdsearch.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
KEYS = {name: value for name, value in vars(attributes).items() if name.isupper()}


def _is_store(node: ast.AST, aliases: set[str]) -> bool:
    """Test for `x.user_attrs`, or a name that stands for it."""
    return (isinstance(node, ast.Attribute) and node.attr == "user_attrs") or (
        isinstance(node, ast.Name) and node.id in aliases
    )


def _keys(tree: ast.AST) -> Iterator[ast.AST]:
    """Expressions by which a file reads or writes what is stored."""
    assignments = (node for node in ast.walk(tree) if isinstance(node, ast.Assign) and _is_store(node.value, set()))
    aliases = {target.id for node in assignments for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _is_store(node.value, aliases):
            yield node.slice
        elif isinstance(node, ast.Compare) and any(_is_store(side, aliases) for side in node.comparators):
            yield node.left
        elif isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("set_user_attr", "set_attribute"):
                yield node.args[name == "set_attribute"]
            elif name == "get" and isinstance(node.func, ast.Attribute) and _is_store(node.func.value, aliases):
                yield node.args[0]
            elif name == "partial" and getattr(node.args[0], "attr", "") == "set_user_attr":
                yield node.args[1]


def _foreign(key: ast.AST) -> list[str]:
    """Texts and constants in a key that are not from the one file."""
    texts = [node.value for node in ast.walk(key) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names = [node.id for node in ast.walk(key) if isinstance(node, ast.Name) and node.id.isupper()]
    return texts + [name for name in names if name not in KEYS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_key_is_written_elsewhere(path: Path) -> None:
    for key in _keys(ast.parse(path.read_text())):
        assert not _foreign(key), f"line {key.lineno}: put it into storage/attributes.py"


@pytest.mark.parametrize(
    "line",
    [
        'study.user_attrs.get("identity")',
        'study.user_attrs["identity"]',
        'found = "identity" in study.user_attrs',
        'study.set_user_attr("identity", 1)',
        'set_attribute(study, "result", {})',
        'partial(study.set_user_attr, "result", 1)',
        "stored = study.user_attrs\nstored[OWN]",
    ],
)
def test_a_key_that_stands_elsewhere_is_seen(line: str) -> None:
    assert any(_foreign(key) for key in _keys(ast.parse(line)))


def test_keys_differ_and_are_those_of_stored_studies() -> None:
    assert len(set(KEYS.values())) == len(KEYS)
    assert (attributes.IDENTITY, attributes.RESULT, attributes.SLOT) == ("identity", "result", "slot")
