"""CSV files as people write them: each gives the values that pandas gives when it is told how to read it, or a question."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from wdsearch.datasets import TableData
from wdsearch.datasets.files import read_frame
from wdsearch.datasets.tables.reading import Reading
from wdsearch.datasets.tables.rules import Roles
from wdsearch.errors import DataError

ROWS = 40
GENERATOR = np.random.default_rng(0)
REAL = (10 * GENERATOR.normal(size=ROWS)).round(1)
LARGE = GENERATOR.uniform(200, 90_000, ROWS)
KIND = ["ab"[row % 2] for row in range(ROWS)]


def german(value: float) -> str:
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))


def written(columns: dict[str, Any], separator: str = ",") -> str:
    return pd.DataFrame(columns).to_csv(index=False, sep=separator)


def read(tmp_path: Path, text: str | bytes, *targets: str, **options: Any) -> Any:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_frame(path, Reading(**options), Roles(targets))


# -- numbers -------------------------------------------------------------------------------------------------------

NUMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "decimal comma": (written({"p": [german(x) for x in REAL], "k": KIND}, ";"), {"decimal": ",", "thousands": "."}),
    "German thousands": (
        written({"p": [german(x) for x in LARGE], "k": KIND}, ";"),
        {"decimal": ",", "thousands": "."},
    ),
    "German integers beside a decimal comma": (
        written({"p": [f"{x:,.0f}".replace(",", ".") for x in LARGE], "q": [german(x) for x in REAL]}, ";"),
        {"decimal": ",", "thousands": "."},
    ),
    "English thousands in quotes": (written({"p": [f"{x:,.0f}" for x in LARGE], "q": REAL}), {"thousands": ","}),
    "English thousands and decimals": (
        written({"p": [f"{x:,.2f}" for x in LARGE], "k": KIND}, "\t"),
        {"thousands": ","},
    ),
    "Swiss": (written({"p": [f"{x:,.2f}".replace(",", "'") for x in LARGE], "k": KIND}), {"thousands": "'"}),
    "French": (
        written({"p": [german(x).replace(".", "\u202f") for x in LARGE], "k": KIND}, ";"),
        {"decimal": ",", "thousands": " "},
    ),
    "three decimals each": (written({"p": [f"{x:.3f}" for x in LARGE / 1000 + 1], "k": KIND}), {}),
    "exponents and signs": (written({"p": [f"{x:+.1e}" for x in LARGE], "q": [f"{x:+.0f}" for x in LARGE]}), {}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_that_pandas_reads_when_told_how(tmp_path: Path, name: str) -> None:
    text, told = NUMBERS[name]
    separator = next(mark for mark in "\t;," if mark in text.partition("\n")[0])
    expected = pd.read_csv(io.StringIO(text.replace("\u202f", " ")), sep=separator, **told)
    frame, _ = read(tmp_path, text)
    for column in expected.columns:
        pd.testing.assert_series_equal(frame[column], expected[column], rtol=1e-14)


@pytest.mark.parametrize(
    ("values", "cells", "remark"),
    [
        (REAL, [f"{x:.1f}%" for x in REAL], "% removed"),
        (LARGE, [f"{german(x)} €" for x in LARGE], "€ removed"),
        (LARGE, [f"$ {x:.2f}" for x in LARGE], "$ removed"),
        (REAL, [f"{x:.2f}".replace("-", "−") for x in REAL], ""),
    ],
)
def test_signs_beside_numbers_are_removed_and_said(
    tmp_path: Path, values: np.ndarray, cells: list[str], remark: str
) -> None:
    frame, facts = read(tmp_path, written({"p": cells, "k": KIND}, ";"))
    np.testing.assert_allclose(frame["p"], values, atol=0.005)
    assert remark in facts.remarks.get("p", "")


@pytest.mark.parametrize(
    ("columns", "question"),
    [
        (
            {"p": [f"{x:.2f}".replace(".", ",") for x in REAL], "q": REAL},
            r"'q' \(.*\) has decimal points, 'p' \(.*\) decimal commas; set decimal: {p: ',', q: '.'}",
        ),
        (
            {"p": [f"{x:.2f}".replace(".", ".,"[row % 2]) for row, x in enumerate(REAL)]},
            "'p' has decimal points .* and decimal commas .*; write one of them throughout",
        ),
        ({"p": ["1.500", "750"] * 20}, r"such as 1\.500: .* set decimal: '\.', or thousands: '\.'"),
        ({"p": ["1,500", "750"] * 20}, "such as 1,500: .* set decimal: ',', or thousands: ','"),
    ],
)
def test_numbers_that_can_be_read_in_two_ways_are_asked_about(
    tmp_path: Path, columns: dict[str, Any], question: str
) -> None:
    with pytest.raises(DataError, match=question):
        read(tmp_path, written(columns | {"k": KIND}, ";"))


def test_the_options_that_questions_name_answer_them(tmp_path: Path) -> None:
    both = written({"p": [f"{x:.2f}".replace(".", ",") for x in REAL], "q": REAL}, ";")
    frame, _ = read(tmp_path, both, decimal={"p": ",", "q": "."})
    assert np.allclose(frame["p"], frame["q"])
    group = written({"p": ["1.500", "750"] * 20, "k": KIND}, ";")
    assert read(tmp_path, group, thousands=".")[0]["p"].iloc[0] == 1500
    assert read(tmp_path, group, decimal=".")[0]["p"].iloc[0] == 1.5


@pytest.mark.parametrize(
    ("cells", "doubt"),
    [
        (["5%", "0.5"] * 20, "some numbers with % and some without"),
        (["$5", "€7"] * 20, r"amounts in \$ and €: turn them into one unit"),
        ([*map(str, REAL[1:]), "unknown"], r"numbers, and 1 other cell \('unknown'\): .* missing: \['unknown'\]"),
    ],
)
def test_columns_that_need_a_decision_say_so(tmp_path: Path, cells: list[str], doubt: str) -> None:
    text = written({"p": cells, "k": KIND})
    (reason,) = read(tmp_path, text)[1].doubts.values()
    assert pd.Series([reason]).str.contains(doubt).all()
    with pytest.raises(DataError, match=f"the target 'p': {doubt}"):
        read(tmp_path, text, "p")


# -- missing values, codes, truth ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "NA", "n/a", "-", "?", "null", "None", "nan", ".", " "])
def test_texts_beside_numbers_that_mean_missing_are_missing(tmp_path: Path, text: str) -> None:
    frame, _ = read(tmp_path, written({"p": [text, *REAL[1:]], "k": KIND}))
    assert frame["p"].isna().tolist() == [True] + [False] * (ROWS - 1)
    np.testing.assert_array_equal(frame["p"][1:], REAL[1:])


def test_a_frequent_none_or_na_is_a_value_and_a_rare_one_is_missing(tmp_path: Path) -> None:
    columns = {"region": ["NA", "EU", "AS", "EU"] * 10, "rare": ["NA", *KIND[1:]], "k": ["None", "Mild"] * 20}
    frame, facts = read(tmp_path, written(columns), "k")
    assert frame.isna().sum().to_dict() == {"region": 0, "rare": 1, "k": 0}
    assert facts.remarks == {
        "region": "NA is a value (10 rows); with missing: [NA] a gap",
        "k": "None is a value (20 rows); with missing: [None] a gap",
    }
    by_column, _ = read(tmp_path, written(columns), "k", missing={"region": ["NA"], "rare": []})
    assert by_column.isna().sum().to_dict() == {"region": 10, "rare": 0, "k": 0}


@pytest.mark.parametrize("values", [["a", "b"], ["0", "1"]])
def test_a_target_with_a_few_na_is_asked_about(tmp_path: Path, values: list[str]) -> None:
    text = written({"p": REAL, "k": ["NA"] * 6 + values * 17})
    with pytest.raises(
        DataError, match=r"'k' is NA in 6 of 40 rows: a class, or no label\? set missing: \[NA\] to leav"
    ):
        read(tmp_path, text, "k")
    assert read(tmp_path, text, "k", missing=["NA"])[0]["k"].isna().sum() == 6
    assert "NA" in set(read(tmp_path, text, "k", missing=[])[0]["k"])


def test_an_answer_for_one_column_takes_nothing_from_the_others(tmp_path: Path) -> None:
    columns = {
        "p": ["?", *REAL[1:]],
        "q": ["None", *REAL[1:]],
        "r": ["?", *KIND[1:]],
        "k": ["NA"] * 6 + ["a", "b"] * 17,
    }
    for missing, gaps in ((["NA"], 6), ([], 0)):
        frame, facts = read(tmp_path, written(columns), "k", missing=missing)
        assert frame.isna().sum().to_dict() == {"p": 1, "q": 1, "r": 1, "k": gaps}
        assert not facts.doubts
    frame, facts = read(tmp_path, written(columns), missing={"r": []})
    assert set(frame["r"]) == {"?", "a", "b"}


def test_a_number_may_mean_missing(tmp_path: Path) -> None:
    frame, _ = read(
        tmp_path, written({"p": ["-999", "-999.0", *REAL[2:]], "n": [-999, *range(1, ROWS)]}), missing=[-999]
    )
    assert frame.isna().sum().to_dict() == {"p": 2, "n": 1}


def test_leading_zeros_and_long_integers_are_codes(tmp_path: Path) -> None:
    columns = {"zip": ["01067", "10115"] * 20, "account": [10**17 + row for row in range(ROWS)], "n": range(ROWS)}
    frame, facts = read(tmp_path, written(columns))
    assert frame["zip"].tolist() == ["01067", "10115"] * 20
    assert frame["account"].iloc[1] == "100000000000000001"
    assert frame["n"].dtype == int
    assert facts.remarks == {
        "zip": "leading zeros: codes, not quantities",
        "account": "more than 15 digits: codes, not quantities",
    }
    path = tmp_path / "t.csv"
    assert read_frame(path, None, Roles(numbers=["zip"]))[0]["zip"].iloc[0] == 1067
    assert read_frame(path, None, Roles(categories=["n"]))[0]["n"].iloc[0] == "0"


@pytest.mark.parametrize("spellings", [["TRUE", "true", "False"], ["Yes", "y", "NO", "n"], ["true", "1", "0", "False"]])
def test_truth_in_several_spellings_is_one_column_of_truth(tmp_path: Path, spellings: list[str]) -> None:
    cells = [spellings[row % len(spellings)] for row in range(ROWS)]
    frame, _ = read(tmp_path, written({"b": cells, "k": KIND}))
    assert frame["b"].dtype == bool
    assert frame["b"].tolist() == [cell.lower() in ("true", "yes", "y", "1") for cell in cells]
    assert set(read(tmp_path, written({"b": ["yes", "no"] * 20}))[0]["b"]) == {"yes", "no"}, "names of classes"


# -- layout --------------------------------------------------------------------------------------------------------

PLAIN = written({"p": REAL, "town": ["Zürich", "Bern"] * 20, "k": KIND})


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (PLAIN.encode("utf-8-sig"), {}),
        (PLAIN.encode("utf-16"), {}),
        (PLAIN.encode("utf-16-le"), {}),
        (PLAIN.encode("latin-1"), {"encoding": "latin-1"}),
        (PLAIN.encode("cp1252"), {"encoding": "cp1252"}),
        (PLAIN.replace(",", "\t").encode(), {}),
        (PLAIN.replace(",", "|").encode(), {}),
        (PLAIN.replace(",", ";").encode(), {}),
        (PLAIN.replace(",", "  ").encode(), {"separator": r"\s+"}),
        (PLAIN.replace("\n", "\r\n").encode(), {}),
        (PLAIN.replace("\n", "\n\n").encode(), {}),
        (PLAIN.replace(",", " , ").encode(), {}),
        (PLAIN.partition("\n")[2].encode(), {"header": False}),
        ((PLAIN + PLAIN.partition("\n")[0]).encode(), {}),
        ((PLAIN + "Total,12,\n").encode(), {}),
    ],
)
def test_a_table_is_the_same_however_its_file_is_laid_out(
    tmp_path: Path, content: bytes, options: dict[str, Any]
) -> None:
    frame, _ = read(tmp_path, content, **options)
    expected = pd.read_csv(io.StringIO(PLAIN))
    pd.testing.assert_frame_equal(frame.set_axis(expected.columns, axis=1), expected)


def test_line_breaks_and_separators_in_quotes_belong_to_a_text(tmp_path: Path) -> None:
    columns = {"text": ["two\nlines", 'a "b", c'] * 20, "p": REAL}
    frame, _ = read(tmp_path, written(columns))
    assert frame["text"].tolist() == columns["text"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2,3\n4,5,6\n", ["column1", "column2", "column3"]),
        ("0.5,x\n1.5,y\n2.5,x\n", ["column1", "column2"]),
        ("p,x\ne,x\np,s\n", ["column1", "column2"]),
        ("country,1990,1991\nA,1.5,2.5\nB,2.5,3.5\n", ["country", "1990", "1991"]),
        ("0,1,2,k\n1.5,2.5,3.5,a\n", ["0", "1", "2", "k"]),
        ("0,1,2\n1.5,2.5,3.5\n", ["0", "1", "2"]),
        ("a,a,b\n1,2,3\n", ["a", "a.1", "b"]),
        ("a,b,\n1,2,\n", ["a", "b", "Unnamed: 2"]),
        ("a,b\n1,2,\n3,4,\n", ["a", "b", "Unnamed: 2"]),
    ],
)
def test_the_first_row_names_the_columns_unless_it_holds_values(tmp_path: Path, text: str, names: list[str]) -> None:
    frame, facts = read(tmp_path, text)
    assert list(frame.columns) == names
    assert any("holds values: the columns are named column1" in note for note in facts.notes) == ("column1" in names)


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        (b"p,k\nZ\xfcrich,a\n", {}, "not UTF-8 text; say which encoding: cp1252 .* reads 'Zürich'"),
        (b"p,k\n" + b"abc,a\n" * 50_000 + b"Z\xfcrich,a\n", {}, "not UTF-8 text; say which encoding: cp1252"),
        ("id,1,2\n7,1.5,2.5\n", {}, "first row is id, 1, 2: names of columns, or values\\? set header: true if"),
        ("a b k\n1 2 x\n", {}, r"may be separated by spaces \(a b k\); set separator: '\\s\+' if"),
        ("a,b\n1,2,3\n4,5,6\n", {}, "rows have 3 cells and the header 2: name the first column as well"),
        ("Report\na,b,c\n1,2,3\n4,5,6\n", {}, r"first row \(Report\) has 1 cell, most others have 3: remove what"),
        ("a,b\n1,2\n3,4\n1,2,3,4\n", {}, "rows are of unequal length: .*line 4, saw 4; .* must be in quotes"),
        ("a,b,b\n1,2,3\n", {}, "target 'b' names several columns"),
        ("a,b\n1,2\n", {"missing": {"c": ["x"]}}, "name the column 'c'"),
    ],
)
def test_a_file_that_cannot_be_read_as_it_is_says_what_to_do(
    tmp_path: Path, text: str | bytes, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        read(tmp_path, text, "b", **options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"decimal": "x"}, "decimal is 'x'; it is '.' or ','"),
        ({"thousands": "x"}, "thousands is 'x'; it is one of"),
        ({"thousands": ",", "decimal": ","}, "both ','; they differ"),
        ({"missing": "NA"}, r"missing is 'NA'; it is a list of texts, as in \[NA, -999\]"),
        ({"encoding": "utf-99"}, "encoding is 'utf-99'; Python knows"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        Reading(**options)


def test_what_has_no_end_is_refused(tmp_path: Path) -> None:
    for path, kind in {"/dev/zero": "a device", tmp_path: "a folder"}.items():
        with pytest.raises(DataError, match=f"it is {kind}, not a file; save the table to a file"):
            read_frame(Path(path))


def test_plus_and_minus_are_classes_and_a_dash_beside_numbers_is_a_gap(tmp_path: Path) -> None:
    rows = [f"{index / 10},{'+-'[index % 2]},{'-' if index % 9 == 0 else index * 7 % 13}" for index in range(60)]
    (tmp_path / "signs.csv").write_text("a,sign,b\n" + "\n".join(rows))
    data = TableData(tmp_path / "signs.csv", "sign")
    data.setup()
    assert data.classes == ("+", "-")
    assert sum(len(part) for part in data.parts.values()) == 60
    assert data.inputs == 3, "two numbers, and where the second is missing"
