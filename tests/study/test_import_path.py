"""Class paths: a module beside the study file comes first; what cannot be imported is said with where it was looked for."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wdsearch.study.build import build_data
from wdsearch.study.file import StudyFileError
from wdsearch.study.import_path import import_path
from wdsearch.study.load import StudyConfig, load_study

STUDY = """study: own
data: {class_path: PATH, split_seed: 5, init_args: {batch_size: 30}}
model: mlp
space: {l2: {low: 0, high: 1}}
budget: {trials: 1, epochs: 1}
"""
DATA = """
from wdsearch.datasets.digits import Digits
class Data(Digits):
    where = WHERE
"""


@pytest.fixture(autouse=True)
def _imports_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def study(folder: Path, module: str | None = None, path: str = "own_data.Data", name: str = "own_data.py") -> Path:
    """A study file with the module beside it."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if module is not None:
        (folder / name).write_text(module.replace("WHERE", repr(folder.name)))
    (folder / "a.yaml").write_text(STUDY.replace("PATH", path))
    return folder / "a.yaml"


def fault(path: Path, *overrides: str) -> str:
    with pytest.raises(StudyFileError) as error:
        load_study(path, overrides)
    return str(error.value)


def test_a_module_beside_the_study_file_is_found_wherever_the_program_runs(tmp_path: Path) -> None:
    config = load_study(study(tmp_path / "study", DATA))
    data: Any = build_data(config)
    assert (type(data).__module__, data.where) == ("own_data", "study")


def test_a_package_beside_the_study_file_is_found_and_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("NAME = 'neighbour'\n")
    path = study(
        tmp_path, "import neighbour\n" + DATA.replace("WHERE", "neighbour.NAME"), "mine.sets.Data", "mine/sets.py"
    )
    data: Any = build_data(load_study(path))
    assert data.where == "neighbour"


def test_modules_of_one_name_in_two_folders_are_kept_apart(tmp_path: Path) -> None:
    first, second = load_study(study(tmp_path / "1", DATA)), load_study(study(tmp_path / "2", DATA))
    found: list[Any] = [build_data(config) for config in (first, second, first)]
    assert [data.where for data in found] == ["1", "2", "1"]


def test_an_override_keeps_the_folder(tmp_path: Path) -> None:
    config = load_study(load_study(study(tmp_path, DATA)), ["seed=3"])
    assert isinstance(config, StudyConfig)
    assert config.data.folder == tmp_path


def test_own_data_get_the_seeds_that_they_take(tmp_path: Path) -> None:
    data: Any = build_data(load_study(study(tmp_path, DATA), ["seed=9"]))
    assert (data.split_seed, data.seed, data.batch_size) == (5, 9, 30)
    other = "from wdsearch.datasets.digits import Digits\nclass Data(Digits):\n    def __init__(self, batch_size: int): ...\n"
    assert "data.split_seed: own_data.Data takes no argument split_seed" in fault(study(tmp_path / "other", other))


def test_a_module_of_a_name_that_is_in_use_is_refused(tmp_path: Path) -> None:
    text = fault(study(tmp_path, DATA, "typing.Data", "typing.py"))
    assert f"{tmp_path}/typing.py has the name of a module that is in use" in text
    assert import_path("typing.Any") is Any


@pytest.mark.parametrize(
    ("module", "path", "text"),
    [
        (
            None,
            "nowhere.Data",
            "there is no module nowhere; it is looked for beside the study file (FOLDER) and in the inst",
        ),
        (None, "torch.nowhere.Data", "there is no module torch.nowhere; it is looked for beside"),
        (
            "import not_there\n",
            "own_data.Data",
            "the module own_data imports not_there, which is not installed (own_data.py:1)",
        ),
        (
            "x = 1\ny = 1 / 0\n",
            "own_data.Data",
            "its module cannot be imported: ZeroDivisionError: division by zero (own_data",
        ),
        (
            "def f(:\n",
            "own_data.Data",
            "its module cannot be imported: SyntaxError: invalid syntax (own_data.py, line 1)",
        ),
        ("raise SystemExit(3)\n", "own_data.Data", "its module cannot be imported: SystemExit: 3 (own_data.py:1)"),
        ("class Date: ...\n", "own_data.Data", "the module own_data has no Data; did you mean Date? known: Date"),
        ("Data = 3\n", "own_data.Data", "it is no class but 3"),
        (
            DATA + "    task = 'ranking'\n",
            "own_data.Data",
            "data: the class says task = 'ranking'; known: classification, regr",
        ),
    ],
)
def test_what_cannot_be_imported_is_said_with_the_reason(
    tmp_path: Path, module: str | None, path: str, text: str
) -> None:
    found = fault(study(tmp_path, module, path))
    assert found.startswith(f"{tmp_path}/a.yaml:2: data")
    assert text.replace("FOLDER", str(tmp_path)) in found
    assert len(found.splitlines()) == 1
