"""A table larger than memory: read column by column and row by row, its numbers are those of the table in memory."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from support.samples import batches, cancer
from support.studies import yaml_free

import wdsearch
from wdsearch.datasets import TableData
from wdsearch.datasets._scratch import LOCK, PREFIX, Scratch
from wdsearch.datasets._stored import stored_csv
from wdsearch.datasets.tables.csv_files import read_csv
from wdsearch.datasets.tables.reading import Reading
from wdsearch.datasets.tables.rules import Roles
from wdsearch.errors import DataError
from wdsearch.study.build import describe_data
from wdsearch.study.load import load_study
from wdsearch.study.scaffold import begin_study

ROWS = 600


def mixed() -> pd.DataFrame:
    """Numbers with gaps, categories that are rare, unseen in training or missing, groups, times, and two targets."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(ROWS, 4)), columns=list("abcd"))
    frame.loc[generator.random(ROWS) < 0.1, ["a", "c"]] = np.nan
    frame.loc[: ROWS - 40, "late"] = np.nan  # where it is known, the rows are the latest
    frame.loc[ROWS - 39 :, "late"] = generator.normal(size=39)
    frame["whole"] = generator.integers(-5, 50, ROWS)
    frame["few"] = generator.choice(["x", "y", "z", None], ROWS)
    frame["many"] = generator.choice([f"m{k}" for k in range(30)], ROWS, p=np.arange(1, 31) / 465)
    frame["smoker"] = generator.random(ROWS) < 0.3
    frame["truth"] = generator.choice([True, False, None], ROWS)
    frame["patient"] = [f"p{row // 4}" for row in generator.permutation(ROWS)]
    frame["day"] = pd.date_range("2021-03-01", periods=ROWS).astype(str)
    frame["kind"] = generator.choice(["dog", "cat", "owl"], ROWS, p=[0.6, 0.3, 0.1])
    return frame.assign(amount=generator.exponential(size=ROWS), nothing=None, constant=3)


def table(path: Any, target: str = "kind", **arguments: Any) -> TableData:
    other = {"kind": "amount", "amount": "kind"}[target]
    unused = {other, "patient", "day"} - {*arguments.get("split", {}).values()}
    data = TableData(path, target, drop=sorted(unused), categories=["many"], batch_size=64, **arguments)
    data.setup()
    return data


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """CSV files are read, and rows are written, in many pieces."""
    monkeypatch.setattr("wdsearch.datasets.tables.csv_files.PIECE", 1500)
    monkeypatch.setattr("wdsearch.datasets._encoding.BLOCK", 700)


# -- the same numbers ----------------------------------------------------------------------------------------------

CASES: list[dict[str, Any]] = [
    {},
    {"codes": True},
    {"target": "amount"},
    {"target": "amount", "codes": True, "split": {"time": "day"}},
    {"split": {"group": "patient"}, "class_weight": "balanced"},
    {"split": {"stratify": "smoker"}, "class_weight": {"owl": 3}, "codes": True},
    {"split": {"stratify": False}, "min_frequency": 1},
    {"split": {"time": "day"}, "min_frequency": 30},
]


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
@pytest.mark.parametrize("arguments", CASES, ids=str)
def test_a_streamed_table_gives_the_numbers_of_one_in_memory(
    tmp_path: Path, name: str, arguments: dict[str, Any]
) -> None:
    path = tmp_path / name
    mixed().to_parquet(path) if name.endswith("parquet") else mixed().to_csv(path, index=False)
    whole, streamed = (table(path, in_memory=in_memory, **arguments) for in_memory in (True, False))
    assert streamed.about == f"{whole.about}; read batch by batch"
    for said in ("task", "metric", "classes", "columns", "class_weights", "categories", "inputs", "shape", "outputs"):
        assert getattr(streamed, said) == getattr(whole, said), said
    found, expected = batches(streamed), batches(whole)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    config = load_study(yaml_free())
    assert describe_data(config, streamed)["digest"] == describe_data(config, whole)["digest"]


def test_what_is_streamed_and_what_is_not_is_told_by_the_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    mixed().to_csv(path, index=False)
    size = path.stat().st_size * 3

    def about(free: int) -> str:
        monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": free})())
        return table(path).about

    read: list[str] = []
    monkeypatch.setattr("wdsearch.datasets.table.stored_csv", lambda *a: read.append("stored") or stored_csv(*a))
    assert "batch" not in about(4 * size + 4)
    assert not read
    assert "batch" not in about(4 * size), "its rows take less than its text"
    assert read == ["stored"]
    assert about(ROWS * 4 * 30).endswith("read batch by batch")
    monkeypatch.setattr("wdsearch.datasets.table.fits", lambda size: size <= ROWS * 4 * 16)
    assert table(path).about.endswith("read batch by batch"), "one-hot rows are larger than category numbers"


def test_encoding_is_that_of_scikit_learn(tmp_path: Path) -> None:
    frame = mixed().drop(columns=["nothing", "constant"])
    data = table(frame, "amount", split={"time": "day"}, min_frequency=20)
    numbers, categories = list(data.columns.numbers), list(data.columns.categories)
    assert (numbers, categories) == (["a", "b", "c", "d", "late", "whole"], ["few", "many", "smoker", "truth"])
    texts = frame[categories].astype("string").fillna("(missing)").astype(object)
    inputs = frame[numbers].astype(float).join(texts)
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20, sparse_output=False)
    theirs = ColumnTransformer(
        [("n", make_pipeline(imputer, StandardScaler()), numbers), ("c", one_hot, categories)]
    ).fit(inputs[:360])
    for part, rows in {"train": slice(0, 360), "validation": slice(360, 480), "test": slice(480, 600)}.items():
        ours = data.parts[part].tensors[0].numpy()
        np.testing.assert_allclose(ours, theirs.transform(inputs[rows]), atol=1e-6, err_msg=part)


def test_a_study_of_a_streamed_table_gives_the_numbers_of_one_in_memory_and_goes_on_in_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    mixed().to_csv(path, index=False)

    def results(home: str, trials: int, in_memory: bool) -> Any:
        data = table(path, in_memory=in_memory, codes=True)
        model = {"name": "residual_mlp", "init_args": {"width": 8, "blocks": 1}}
        study = yaml_free() | {"data": data, "model": model, "budget": {"trials": trials, "epochs": 2}}
        return [trial.result for trial in wdsearch.run(study, home=tmp_path / home, progress=False).trials]

    for trials in (2, 4):
        expected = results("whole", trials, in_memory=True)
        assert results("changing", trials, in_memory=trials == 2) == expected
    assert len(expected) == 4


def test_another_process_reads_the_same_rows(tmp_path: Path) -> None:
    mixed().to_csv(tmp_path / "t.csv", index=False)
    data = table(tmp_path / "t.csv", in_memory=False)
    rows = data.parts["train"]
    first = rows[torch.arange(50)]
    for one, other in zip(pickle.loads(pickle.dumps(rows))[torch.arange(50)], first, strict=True):
        assert torch.equal(one, other)


# -- types ---------------------------------------------------------------------------------------------------------

TURNING = {
    "whole": ["1", "2", "-3"],
    "late number": ["1", "2", "1.50"],
    "late gap": ["1", "2", ""],
    "early gap": ["", "2", "3"],
    "late text": ["7", "1.50", "x"],
    "late code": ["70", "15", "007"],
    "late comma": ["2", "2.000", "1,5"],
    "texts": ["a", "b", "NA"],
    "late truth": ["", "TRUE", "false"],
    "truth and number": ["True", "1", "no"],
    "large": ["1", "9223372036854775808", "3"],
    "nothing": ["", "", ""],
    "infinite": ["1", "inf", "1e400"],
    "rounded": ["0.1", "0.30000000000000004", "1234567890123456.7"],
}


@pytest.mark.parametrize("block", [1, 2, 40])
def test_columns_of_a_stored_table_are_those_of_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Values come in runs of one kind, so that a piece of a column looks like something else than the whole."""
    columns = {name: [value for value in values for _ in range(block)] for name, values in TURNING.items()}
    path, roles = tmp_path / "t.csv", Roles()
    pd.DataFrame(columns).to_csv(path, index=False, sep=";")
    reading = Reading(decimal=dict.fromkeys(["late number", "infinite", "rounded"], "."))
    whole, facts = read_csv(path, reading, roles)
    monkeypatch.setattr("wdsearch.datasets.tables.csv_files.PIECE", block * len(whole.columns))
    stored, stored_facts = stored_csv(path, reading, roles, {"whole"}, scratch := Scratch(), 10**6)
    assert list(stored.columns) == list(whole.columns)
    assert len(stored) == len(whole)
    del facts.rules["whole"]
    assert stored_facts == facts
    for name in whole.columns.drop("whole"):
        pd.testing.assert_series_equal(stored[name], whole[name])
    with pytest.raises(KeyError):
        stored["whole"]
    del scratch


# -- disk and memory -----------------------------------------------------------------------------------------------


def left() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def test_a_disk_that_is_too_small_is_said_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed().to_csv(tmp_path / "t.csv", index=False)
    mixed().to_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usage = namedtuple("usage", "total used free")(2**40, 2**40, 2**28)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    for name, what in {"t.csv": "reading it column by column", "t.parquet": "reading 600 rows batch by batch"}.items():
        with pytest.raises(DataError, match=rf"{what} needs about 0\.0 GiB of temporary files, and .*0 has 0\.2 GiB f"):
            table(tmp_path / name, in_memory=False)
    with pytest.raises(DataError, match="make room there, or let TMPDIR name a folder on a larger disk"):
        table(tmp_path / "t.csv", in_memory=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere: No such file or directory; temporary files go to where TMPDIR says"):
        table(tmp_path / "t.csv", in_memory=False)


def test_temporary_files_are_gone_with_the_data_and_those_of_the_dead_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mixed().to_csv(tmp_path / "t.csv", index=False)
    table(tmp_path / "t.csv", in_memory=None)
    assert not left(), "rows that fit need none"
    living = table(tmp_path / "t.csv", in_memory=False)
    (folder,) = left()
    assert sorted(path.name for path in folder.iterdir()) == [LOCK, "rows"], "columns and rows are not there twice"
    dead = tmp_path / f"{PREFIX}dead"
    dead.mkdir()
    (dead / LOCK).touch()
    other = table(tmp_path / "t.csv", in_memory=False)
    assert folder in left()
    assert dead not in left()
    assert len(left()) == 2
    del living, other
    assert not left()


LARGE_TABLE = """
import json, sys, time
import pandas, pyarrow.parquet, sklearn.preprocessing, sklearn.model_selection
import psutil
from wdsearch.datasets import TableData
free = int(sys.argv[2])
psutil.virtual_memory = lambda: type("Memory", (), {"available": free})()
def peak():  # of this program; getrusage counts what started it as well
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before, start = peak(), time.time()
data = TableData(sys.argv[1], "y", batch_size=1000)
data.setup()
ready = time.time()
rows = sum(len(targets) for _, targets in data.train_dataloader())
print(json.dumps([peak() - before, rows, ready - start, time.time() - ready, data.about]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak as Linux counts it")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_larger_than_what_is_free_takes_a_fraction_of_its_size(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(200_000, 120)).round(5)).rename(columns="x{}".format)
    frame["k"] = generator.choice(["north", "south", "east"], len(frame))
    frame["y"] = frame["x0"] + generator.normal(size=len(frame))
    path, size = tmp_path / name, int(frame.memory_usage(deep=True).sum())
    pa.csv.write_csv(pa.Table.from_pandas(frame), path) if name == "t.csv" else frame.to_parquet(
        path, row_group_size=10_000
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LARGE_TABLE, str(path), str(size // 2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    peak, rows, *_, about = json.loads(done.stdout)
    assert (rows, about.endswith("read batch by batch")) == (120_000, True)
    print(f"{name}: {size / 2**20:.0f} MiB of values, peak {peak / 2**20:.0f} MiB")
    assert peak < 0.7 * size


def test_a_study_is_begun_by_the_first_rows_of_a_table_larger_than_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**16})())
    monkeypatch.setattr("wdsearch.study.scaffold.LOOKED_AT", 200)
    for name in ("t.csv", "t.parquet"):
        path = tmp_path / name
        cancer().drop(columns="nothing").to_csv(path) if name == "t.csv" else mixed().to_parquet(path)
        begun = begin_study(tmp_path / f"{name} study", path, "diagnosis" if name == "t.csv" else "kind")
        assert begun.notes[1] == "the table is large: only its first 200 rows were looked at"
        assert "in each of" in begun.notes[0]
    sorted_by = cancer().sort_values("diagnosis")
    sorted_by.to_csv(tmp_path / "sorted.csv")
    with pytest.raises(
        DataError, match=r"has one value, benign: .*only its first 200 rows were looked at: if others d"
    ):
        begin_study(tmp_path / "other", tmp_path / "sorted.csv", "diagnosis")
