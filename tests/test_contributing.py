"""CONTRIBUTING.md shows the tree as it is, low to high."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
TREE = re.findall(r"^  (\w+)(?:\.py|/) ", GUIDE.partition("```\nwdsearch/")[2], re.M)


def test_the_tree_shows_every_package_and_file() -> None:
    entries = {path.stem for path in (ROOT / "wdsearch").iterdir() if not path.name.startswith(("_", "."))}
    assert entries <= set(TREE), f"CONTRIBUTING.md does not show {entries - set(TREE)}"
    assert len(TREE) == len(set(TREE))


def test_the_tree_is_ordered_as_its_imports_are() -> None:
    law = re.findall(r'^    "([a-z_ ]+)",$', (ROOT / "tests" / "test_layers.py").read_text(), re.M)
    ranks = {name: rank for rank, names in enumerate(law) for name in names.split()}
    order = [ranks[name] for name in TREE if name in ranks]
    assert order == sorted(order)


def test_each_table_of_a_recipe_is_there() -> None:
    tables = set(re.findall(r"line in `([A-Z]+)`", GUIDE)) - {"TRACKERS"}
    code = "\n".join(path.read_text() for path in (ROOT / "wdsearch").rglob("*.py"))
    assert len(tables) >= 7
    for table in tables:
        assert re.search(rf"^{table}\b.* = ", code, re.M), table


def test_no_test_module_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        imports = re.findall(r"^ *(?:from|import) .*\btest_\w+.*$", path.read_text(), re.M)
        assert not imports, f"{path.name}: {imports}; what several tests use is in tests/support/"
