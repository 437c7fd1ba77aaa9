"""The commands with which a study begins, help, and what the shell completes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from jsonschema import Draft7Validator
from sklearn.datasets import load_diabetes
from support.commands import called
from support.processes import command
from support.samples import cancer
from typer.main import get_command

import wdsearch
from wdsearch.cli.app import app
from wdsearch.datasets import DATASETS
from wdsearch.errors import DataError
from wdsearch.launch.workers import engines
from wdsearch.models import MODELS
from wdsearch.optimizers import OPTIMIZERS
from wdsearch.regularizers import REGULARIZERS
from wdsearch.search.preview import preview
from wdsearch.storage.home import Home
from wdsearch.strategies.pruners import PRUNERS, make_pruner
from wdsearch.strategies.samplers import SAMPLERS, make_sampler
from wdsearch.study.build import build_data
from wdsearch.study.catalog import catalog
from wdsearch.study.file import StudySource
from wdsearch.study.json_schema import study_schema
from wdsearch.study.load import load_study
from wdsearch.study.scaffold import ScaffoldError, begin_study
from wdsearch.tracking import trackers

HEAVY = ("torch", "lightning", "optuna", "mlflow", "sklearn", "pandas", "numpy")
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def console(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As the console script: the working folder is not on Python's path."""
    everything = {key: value for key, value in os.environ.items() if key != "WDSEARCH_HOME"} | environment
    return command(*words, folder=folder, environment=everything, timeout_s=300.0)


# -- init ----------------------------------------------------------------------------------------------------------


def test_init_writes_a_study_that_is_sound_commented_and_runs(tmp_path: Path) -> None:
    done = called("init", str(tmp_path / "new"))
    assert done.exit_code == 0, done.stderr
    path = tmp_path / "new" / "study.yaml"
    assert f"wdsearch validate {path}" in done.stdout
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=study.schema.json\n")
    for key in StudySource.from_text(text, "").content:
        assert re.search(rf"#[^\n]*\n{key}:|^{key}:[^\n]*#", text, re.M) or key in (
            "optimizer",
            "objective",
            "budget",
            "search",
        )
    schema = json.loads((path.parent / "study.schema.json").read_text())
    assert schema == study_schema()
    assert Draft7Validator(schema).is_valid(StudySource.from_text(text, "").content)
    assert preview(path).config.study == "mnist1d"
    few = ["budget.trials=2", "budget.epochs=8", "model.init_args.hidden=[8]"]
    assert len(wdsearch.run(path, few, progress=False).trials) == 2


def test_what_is_commented_out_in_the_templates_is_sound_too(tmp_path: Path) -> None:
    load_diabetes(as_frame=True).frame.to_csv(tmp_path / "d.csv", index=False)
    for begun in (begin_study(tmp_path / "1"), begin_study(tmp_path / "2", tmp_path / "d.csv", "target")):
        path = next(iter(begun.files))
        text, count = re.subn(r"^  # (\w[\w.]*: )", r"  \1", path.read_text(), flags=re.M)
        assert count >= 2
        path.write_text(text)
        load_study(path)


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("mine")
    done = called("init", str(tmp_path))
    assert done.exit_code == 2
    assert f"{tmp_path}: study.yaml is there already, and would be lost: give another folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
    assert (tmp_path / "study.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--target", "y"], "--target goes with --from-csv FILE"),
        (["--from-csv", "none.csv"], "none.csv: there is no such file"),
        (
            ["--from-csv", "table.csv"],
            "which column of table.csv is to be predicted? --target COLUMN; it has: a, b, kind",
        ),
        (
            ["--from-csv", "table.csv", "--target", "knd"],
            "--target, table.csv: the table has no column 'knd'; did you mean kind?",
        ),
        (["file", "--from-csv", "table.csv", "--target", "kind"], "file is not a folder"),
        (["/proc/new"], "/proc/new cannot be written"),
    ],
)
def test_a_wrong_init_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("a,b,kind\n" + "1,2,x\n3,4,y\n5,7,x\n8,4,y\n" * 10)
    (tmp_path / "file").write_text("")
    done = called("init", *words)
    assert done.exit_code == 2
    assert text in done.stderr
    assert not (tmp_path / "study.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cancer", "diabetes"])
def test_a_study_of_a_table_runs_in_its_own_folder(tmp_path: Path, name: str) -> None:
    frame = cancer() if name == "cancer" else load_diabetes(as_frame=True).frame
    frame.to_csv(tmp_path / "table.csv", index=False, sep="," if name == "cancer" else ";")
    target = "diagnosis" if name == "cancer" else "target"
    done = console("init", ".", "--from-csv", "table.csv", "--target", target, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = console("validate", "study.yaml", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "table is sound" in done.stdout
    few = ("--set", "budget.trials=4", "--set", "budget.epochs=2")
    done = console("run", "study.yaml", *few, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "table: best of 4 trials" in done.stdout
    assert ("val_balanced_accuracy" if name == "cancer" else "val_r2") in done.stdout


def test_init_says_which_columns_are_left_out_and_the_study_file_names_them(tmp_path: Path) -> None:
    cancer().to_parquet(tmp_path / "table.parquet")
    begun = begin_study(tmp_path, tmp_path / "table.parquet", "diagnosis")
    assert begun.notes == (
        "diagnosis, one of 2 classes, from 30 numbers and 2 categories in each of 568 rows",
        "1 of 569 rows is left out: it has no diagnosis",
        "left out: year (it has one value)",
        "left out: nothing (it is empty)",
        "left out: patient_id (it numbers the rows)",
        "left out: note (text of 568 different values)",
    )
    notes = {note.name: note for note in begun.columns}
    assert (len(notes), notes["ward"].became, notes["ward"].missing) == (37, "category, one of 3", 142)
    assert notes["patient_id"][:3] == ("patient_id", "left out: it numbers the rows", "1000")
    (path, *_) = begun.files
    config = load_study(path)
    arguments = {"path": "table.parquet", "target": "diagnosis", "drop": ["patient_id", "note"], "batch_size": 20}
    assert config.data.init_args == arguments
    path.write_text(path.read_text().replace("# class_weight", "class_weight"))
    assert load_study(path).data.init_args == arguments | {"class_weight": "balanced"}
    weights = build_data(load_study(path)).class_weights
    assert weights is not None
    assert weights[0] < 1 < weights[1], "benign ones are more frequent"


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("", "the file is empty; a table has a row of names and rows of values"),
        ("a,y\n1,2\n", "has 1 rows with a target; at least 20 are needed"),
        ("a,y\n" + "1,x\n2,x\n" * 20, "the target 'y' has one value, x"),
        ("a,y\n" + "1,x\n2,z\n" * 20 + "3,w\n", "w of the target 'y' has 1 rows; every class needs 5"),
        ("a,y\n" + "1,x\n1,z\n" * 20, "has no column of use beside 'y': a (it has one value)"),
        ("y\n" + "x\nz\n" * 20, "has no column of use beside 'y': there is none"),
    ],
)
def test_a_table_of_which_no_study_can_be_made_is_refused(tmp_path: Path, rows: str, text: str) -> None:
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(DataError, match=re.escape(text)):
        begin_study(tmp_path, tmp_path / "t.csv", "y")
    (tmp_path / "t.csv").write_bytes(b"a,y\n\xe9,1\n")
    with pytest.raises(DataError, match="it is not UTF-8 text"):
        begin_study(tmp_path, tmp_path / "t.csv", "y")
    with pytest.raises(ScaffoldError, match="cannot be written"):
        begin_study(Path("/proc/new"))


def test_init_asks_about_a_table_and_takes_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{row % 7},5;{row % 5}.25;{1 + row % 3},250;{'NA' if row % 9 == 0 else 'xy'[row % 2]}" for row in range(63)
    ]
    Path("t.csv").write_text("\n".join(["p;q;r;kind", *rows]))
    words = ["init", "--from-csv", "t.csv", "--target", "kind"]
    asked = called(*words)
    assert (asked.exit_code, "set missing: [NA]" in asked.stderr, "with init: --set NAME" in asked.stderr) == (
        2,
        True,
        True,
    )
    words += ["--set", "missing=[NA]"]
    asked = called(*words)
    assert (asked.exit_code, "set decimal: {p: ','" in asked.stderr) == (2, True)
    done = called(*words, "--set", "decimal={p: ',', q: '.', r: ','}", "--set", "drop=[q]")
    assert done.exit_code == 0, done.stderr
    for text in ("7 of 63 rows are left out: they have no kind", "decimal comma, as in", "left out by drop"):
        assert text in " ".join(done.stdout.split())
    arguments = load_study(Path("study.yaml")).data.init_args
    assert arguments["decimal"] == {"p": ",", "q": ".", "r": ","}
    assert (arguments["missing"], arguments["drop"]) == (["NA"], ["q"])
    checked = called("validate", "study.yaml")
    assert checked.exit_code == 0, checked.stderr
    assert "warning data: 7 of 63 rows are left out: they have no kind" in checked.stdout
    assert "decimal comma, as in" in " ".join(checked.stdout.split())
    wrong = called("init", "other", *words[1:5], "--set", "epochs=3")
    assert "--set epochs: of a table can be set separator, decimal" in wrong.stderr


def test_several_quantities_are_targets_of_one_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_diabetes(as_frame=True).frame.assign(kind=["a", "b"] * 221).to_csv("d.csv", index=False)
    done = called("init", "--from-csv", "d.csv", "--target", "target", "--target", "bmi")
    assert (done.exit_code, "target and bmi, 2 quantities, from 9 numbers and 1 category" in done.stdout) == (
        0,
        True,
    ), done.stderr
    data = build_data(load_study(Path("study.yaml")))
    assert (data.task, data.outputs, data.parts["train"].targets.shape[1]) == ("regression", 2, 2)
    refused = called("init", "other", "--from-csv", "d.csv", "--target", "target", "--target", "kind")
    assert refused.exit_code == 2
    assert "several targets (target, kind) must be quantities, and 'kind' holds classes; make a study" in refused.stderr


# -- validate ------------------------------------------------------------------------------------------------------


def test_validate_shows_a_study_and_the_command_that_runs_it(tmp_path: Path) -> None:
    (path, *_) = begin_study(tmp_path).files
    done = called("validate", str(path), "--set", "study=a.b")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "a.b is sound: 32 trials of 40 epochs, and the baseline" in done.stdout
    assert f"next  wdsearch run {path} --set study=a.b" in done.stdout


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("space.weight_decay=2000", "space.weight_decay goes up to 2000; at a learning rate of 0.03"),
        ("space.dropout.high=2", "space.dropout.high is 2; a dropout rate lies in [0, 1)"),
        (
            "data.init_args.batch_size=0",
            "data: mnist1d(split_seed=0, seed=0, batch_size=0) cannot be built: ValueError",
        ),
        (
            "schedule={cron: '0 2 * * 1', on: slurm, options: {partitoin: gpu}}",
            "schedule.options.partitoin is not an option of slurm; did you mean partition?",
        ),
    ],
)
def test_validate_ends_with_2_and_the_fault(tmp_path: Path, override: str, text: str) -> None:
    (path, *_) = begin_study(tmp_path).files
    done = called("validate", str(path), "--set", override)
    assert (done.exit_code, done.stdout) == (2, "")
    assert text in done.stderr


def test_validate_does_not_load_torch_for_what_is_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("study: [")
    done = traced(tmp_path, "validate", "a.yaml")
    assert done.returncode == 2
    assert "a.yaml:1: this is not YAML" in done.stderr
    assert not {"torch", "lightning", "optuna"} & loaded(done)


# -- list and schema -----------------------------------------------------------------------------------------------


def test_list_names_all_that_there_is_with_what_it_takes() -> None:
    found = json.loads(called("list", "--json").stdout)
    assert found.pop("engines") == json.loads(json.dumps(engines()))
    assert found.pop("trackers") == json.loads(json.dumps(trackers()))
    assert found == json.loads(json.dumps(catalog()))
    tables = {
        "regularizers": REGULARIZERS,
        "optimizers": OPTIMIZERS,
        "models": MODELS,
        "data": DATASETS,
        "samplers": SAMPLERS,
        "pruners": PRUNERS,
    }
    assert {kind: [entry["name"] for entry in entries] for kind, entries in found.items()} == {
        kind: list(table) for kind, table in tables.items()
    }
    assert all(entry["summary"] for entries in found.values() for entry in entries)
    for entry in found["regularizers"]:
        assert entry["unit"]
        assert float(entry["off"]) == REGULARIZERS[entry["name"]].neutral
    mlp = found["models"][0]
    assert {"name": "hidden", "takes": "a list of whole numbers", "default": [256, 256]} in mlp["arguments"]
    text = called("list").stdout
    for entries in found.values():
        for entry in entries:
            assert re.search(rf"^{entry['name']}  ", text, re.M)


def test_the_defaults_that_list_shows_are_those_that_a_study_gets() -> None:
    shown = {entry["name"]: entry["arguments"] for kind in ("samplers", "pruners") for entry in catalog()[kind]}
    defaults = {name: {a["name"]: a.get("default") for a in arguments} for name, arguments in shown.items()}
    assert make_sampler("qmc", {}, 0, 0)._scramble is defaults["qmc"]["scramble"] is True  # type: ignore[attr-defined]
    median = make_pruner("median", {}, 80)
    assert (median._n_warmup_steps, median._interval_steps) == (80 / 4, 80 / 8)  # type: ignore[attr-defined]
    assert (defaults["median"]["n_warmup_steps"], defaults["median"]["interval_steps"]) == ("epochs/4", "epochs/8")
    assert make_pruner("halving", {}, 80).rungs(0)[0] == 80 / 4  # type: ignore[attr-defined]
    assert defaults["halving"]["min_resource"] == defaults["hyperband"]["min_resource"] == "epochs/4"


def test_schema_is_printed_or_written(tmp_path: Path) -> None:
    assert json.loads(called("schema").stdout) == study_schema()
    done = called("schema", "--output", str(tmp_path / "s.json"))
    assert "# yaml-language-server: $schema=s.json" in done.stdout
    assert json.loads((tmp_path / "s.json").read_text()) == study_schema()
    done = called("schema", "-o", str(tmp_path / "no" / "s.json"))
    assert done.exit_code == 2
    assert "s.json cannot be written: No such file or directory" in done.stderr


# -- help and completion -------------------------------------------------------------------------------------------


def traced(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-P", "-m", "wdsearch.cli", *words]
    everything = {key: value for key, value in os.environ.items() if key != "WDSEARCH_HOME"} | environment
    return subprocess.run(command, cwd=folder, env=everything, capture_output=True, text=True, timeout=60, check=False)


def loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The packages that a traced call has imported."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}


def test_help_lists_every_command_in_a_group_and_loads_nothing_heavy(tmp_path: Path) -> None:
    done = traced(tmp_path, "--help")
    assert not set(HEAVY) & loaded(done)
    text = done.stdout
    groups = [text.index(f"─ {name} ─") for name in ("Begin", "Search", "Results")]
    assert groups == sorted(groups)
    for name in COMMANDS:
        assert re.search(rf"^│ {name} ", text, re.M), name
    assert "Example: wdsearch" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_ends_in_an_example(command: str) -> None:
    done = called(command, "--help")
    assert done.exit_code == 0
    assert f"Example: wdsearch {command}" in " ".join(done.stdout.split()[-12:])


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert called("--version").stdout == f"wdsearch {version('wdsearch')}\n"


def completed(folder: Path, *words: str, **environment: str) -> list[str]:
    """Completions that the shell offers for the last word."""
    asked = {"_WDSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("wdsearch", *words))}
    done = traced(folder, **asked, COMP_CWORD=str(len(words)), **environment)
    assert not set(HEAVY) & loaded(done), "too slow for a tab key"
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two studies in its home, and one in another storage."""
    home = Home(tmp_path / ".wdsearch")
    for name in ("first", "second"):
        optuna.create_study(study_name=name, storage=home.open())
    optuna.create_study(study_name="third", storage=f"sqlite:///{tmp_path / 'other.db'}")
    return tmp_path


def test_names_of_studies_are_completed_from_the_storage(folder: Path) -> None:
    for name in ("best", "plot", "ui", "status", "sync"):
        assert completed(folder, name, "") == ["second", "first"]
    assert completed(folder, "best", "f") == ["first"]
    other = f"sqlite:///{folder / 'other.db'}"
    assert completed(folder, "best", "--storage", other, "") == ["third"]
    assert completed(folder, "best", "", WDSEARCH_STORAGE=other) == ["third"]
    assert completed(folder.parent, "best", "--home", str(folder / ".wdsearch"), "s") == ["second"]
    assert completed(folder.parent, "best", "", WDSEARCH_HOME=str(folder / ".wdsearch")) == ["second", "first"]


def test_where_no_names_can_be_read_none_are_offered(folder: Path) -> None:
    for file in (folder / ".wdsearch").glob("optuna.db*"):  # with what was not written into it yet
        file.write_bytes(b"no database")
    assert completed(folder, "best", "") == []
    assert completed(folder, "best", "--storage", "postgresql://nowhere/x", "") == []
    assert completed(folder / ".wdsearch", "best", "") == []
    assert not (folder / ".wdsearch" / ".wdsearch").exists(), "looking makes nothing"


def test_study_files_are_completed(folder: Path) -> None:
    (folder / "studies").mkdir()
    for name in ("a.yaml", "b.txt", "studies/c.yml", "studies/d.yaml", "t.csv"):
        (folder / name).write_text("")
    assert completed(folder, "run", "") == ["a.yaml", "studies/"]
    assert completed(folder, "validate", "st") == ["studies/c.yml", "studies/d.yaml"], "a folder alone is entered"
    assert completed(folder, "run", f"{folder}/studies/c") == [f"{folder}/studies/c.yml"]
    assert completed(folder, "run", "nowhere/") == []
    assert completed(folder, "init", "--from-csv", "t") == ["t.csv"]


def test_the_shells_own_script_is_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wdsearch.cli", "--show-completion", "bash"], capture_output=True, text=True, check=True
    )
    assert "complete -o default -F _wdsearch_completion wdsearch" in done.stdout
