"""A user's table: what its columns are, how it is split, and that its preprocessing sees the training rows alone."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.utils.class_weight import compute_class_weight
from support.samples import cancer
from support.studies import yaml_free
from support.training import largest_difference, train_alone, train_fused

import wdsearch
from wdsearch.datasets import TableData
from wdsearch.datasets.files import read_frame
from wdsearch.datasets.frames import columns_of, target_of
from wdsearch.errors import BuildError, DataError
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.file import StudyFileError
from wdsearch.study.load import load_study
from wdsearch.study.space import Configuration
from wdsearch.trial.module import RegularizedModule

USELESS = ["patient_id", "note"]


def table(source: Any, target: str = "diagnosis", **arguments: Any) -> TableData:
    data = TableData(source, target, **arguments)
    data.setup()
    return data


def tensors(data: TableData, part: str = "train") -> tuple[torch.Tensor, ...]:
    return data.parts[part].tensors


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.parquet", "semicolons.csv", "bom.csv", "quoted.csv"])
def test_files_of_every_kind_give_the_same_table(tmp_path: Path, name: str) -> None:
    frame = cancer()
    frame["ward"] = frame["ward"].replace({"north": "Århus"})
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        separator = "\t" if name.endswith("tsv") else ";" if name.startswith("semi") else ","
        quoting = csv.QUOTE_NONNUMERIC if name.startswith("quoted") else csv.QUOTE_MINIMAL
        encoding = "utf-8-sig" if name.startswith("bom") else "utf-8"
        frame.to_csv(path, index=False, sep=separator, encoding=encoding, quoting=quoting)
    from_file, expected = table(path, drop=USELESS), table(frame, drop=USELESS)
    assert from_file.about == expected.about
    for part in expected.parts:
        for one, other in zip(tensors(from_file, part), tensors(expected, part), strict=True):
            assert torch.equal(one, other)


def test_a_file_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancer().to_csv(tmp_path / "t.csv")
    cancer().drop(columns="nothing").to_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**17}))
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(DataError, match=r"it would take about 0\.0 GiB of memory, and 0\.0 GiB are free; leave in"):
            read_frame(tmp_path / name)


# -- columns and targets -------------------------------------------------------------------------------------------


def test_columns_are_read_as_what_they_are() -> None:
    frame = cancer().assign(day=pd.date_range("2020-01-01", periods=569).astype(str))
    found = columns_of(frame.drop(columns="diagnosis"))
    assert len(found.numbers) == 30
    assert found.categories == ("ward", "smoker")
    assert found.useless == {"year": "it has one value", "nothing": "it is empty"}
    assert found.doubtful == {
        "patient_id": "it numbers the rows",
        "note": "text of 569 different values",
        "day": "it holds dates",
    }
    named = columns_of(frame.drop(columns="diagnosis"), ["patient_id"], ["note", "mean radius"])
    assert "patient_id" in named.numbers
    assert {"note", "mean radius"} <= set(named.categories)
    assert not {"note", "patient_id"} & named.doubtful.keys()


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (list(range(60)), None),
        ([row / 60 for row in range(60)], None),
        ([row % 3 for row in range(60)], ("0", "1", "2")),
        ([row % 12 for row in range(60)], tuple(map(str, range(12)))),
        ([float(row % 2) for row in range(60)], ("0", "1")),
        (["b", "a"] * 30, ("a", "b")),
        ([True, False] * 30, ("False", "True")),
    ],
)
def test_a_quantity_is_told_from_classes(values: list[Any], classes: tuple[str, ...] | None) -> None:
    target = target_of(pd.Series(values, name="y"))
    assert target.classes == classes
    assert target.metric == ("r2" if classes is None else "accuracy")
    if classes:
        assert [classes[code] for code in target.encoded([pd.Series(values)])] == [
            str(int(v)) if isinstance(v, float) else str(v) for v in values
        ]


def test_a_study_may_say_that_whole_numbers_are_a_quantity() -> None:
    frame = pd.DataFrame({"x": np.arange(60) / 7, "y": np.arange(60) % 3})
    assert table(frame, "y").task == "classification"
    assert (table(frame, "y", task="regression").task, table(frame, "y", task="regression").outputs) == (
        "regression",
        1,
    )
    study = yaml_free() | {"data": {"name": "table", "init_args": {"path": "t.csv", "target": "y"}, "split_seed": 1}}
    assert load_study(study | {"task": "regression"}).task == "regression"


def test_rows_without_a_target_are_counted_and_their_numbers_seen_all_the_same() -> None:
    frame = pd.DataFrame({"PassengerId": range(1, 61), "x": np.arange(60) / 7, "y": [0.0, 1.0, None] * 20})
    with pytest.raises(DataError, match="'PassengerId': it numbers the rows; leave them out by drop"):
        table(frame, "y")
    data = table(frame, "y", drop=["PassengerId"])
    assert (data.notes, data.classes) == (("20 of 60 rows are left out: they have no y",), ("0", "1"))
    kept = table(frame, "y", numbers=["PassengerId"])
    assert (kept.columns.numbers, len(kept.column_notes)) == (("PassengerId", "x"), 3)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("n", np.random.default_rng(0).permutation(60), "it numbers the rows"),
        ("n", [None, *range(59)], "it numbers the rows"),
        ("customer", np.random.default_rng(0).choice(900_000, 60, False) + 100_000, "each row has another integer"),
        ("time", np.arange(60) ** 3, "each row has another integer"),
        ("store_id", np.arange(60) // 4, "by its name it identifies something"),
        ("x", [np.inf, *np.arange(59) / 7], "it has infinite values"),
    ],
)
def test_identifiers_and_infinite_values_need_a_decision(name: str, values: Any, reason: str) -> None:
    found = columns_of(pd.DataFrame({name: values, "rooms": [1, 2, 3] * 20, "height": np.arange(60) / 7}))
    assert [text.partition(",")[0] for text in found.doubtful.values()] == [reason]
    assert found.numbers == ("rooms", "height")


def test_several_quantities_are_one_target() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(80, 4)), columns=list("abcd")).assign(kind=["u", "v"] * 40)
    frame.loc[3, "d"] = None
    data = table(frame, ["c", "d"])
    assert (data.outputs, data.inputs, data.metric) == (2, 4, "r2")
    assert data.notes == ("1 of 80 rows is left out: it has no c or d",)
    train = tensors(data)[-1].double()
    assert train.shape == (47, 2)
    assert train.mean(0).abs().max() < 1e-6
    with pytest.raises(
        DataError, match=r"several targets \(c, kind\) must be quantities, and 'kind' holds classes; make"
    ):
        table(frame, ["c", "kind"])


def test_missing_values_of_typed_tables_are_as_the_option_names_them(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [-999, *range(1, 60)], "k": ["NA", *"uvw" * 19, "u", "v"], "y": ["a", "b"] * 30})
    frame.to_parquet(tmp_path / "t.parquet")
    for source, kept in ((frame, None), (tmp_path / "t.parquet", True), (tmp_path / "t.parquet", False)):
        data = table(source, "y", numbers=["x"], missing=["NA", -999], in_memory=kept)
        assert [note.missing for note in data.column_notes] == [1, 1, 0]
    with pytest.raises(DataError, match="decimal says how a CSV file is written, and this is a DataFrame"):
        table(frame, "y", decimal=",")
    with pytest.raises(DataError, match="has 2 columns 'x'; rename all but one"):
        table(pd.concat([frame, frame[["x"]]], axis=1), "y")


# -- preprocessing -------------------------------------------------------------------------------------------------


def test_preprocessing_is_fitted_to_the_training_rows_alone() -> None:
    frame = cancer()
    frame.loc[frame.index[-1], "ward"] = "a ward of one"
    data = table(frame, drop=USELESS)
    inputs, _ = tensors(data)
    numbers, categories = inputs[:, :31].double(), inputs[:, 31:]
    assert numbers.mean(0).abs().max() < 1e-5
    assert (numbers.std(0, unbiased=False) - 1).abs().max() < 1e-4
    assert torch.equal(categories.sum(1), torch.full((len(inputs),), 2.0)), "a ward and smoker or not"
    assert categories.shape[1] == 6 + (categories[:, :5].sum(0) == 1).any()
    other = cancer()
    train = set(map(bytes, map(np.ndarray.tobytes, inputs.numpy())))
    far = table(other.assign(**{"mean area": other["mean area"].where(other.index != 3, 1e6)}), drop=USELESS)
    kept = [row.tobytes() in train for row in tensors(far)[0].numpy()]
    assert all(kept) or not any(kept), "a row that is not trained on changes nothing"


def test_a_gap_is_the_median_of_the_training_rows_and_a_column_says_so() -> None:
    generator = np.random.default_rng(0)
    values = generator.exponential(size=200)
    values[::9] = np.nan
    frame = pd.DataFrame({"x": values, "y": generator.normal(size=200), "row": np.arange(200)})
    data = table(frame, "y", drop=["row"], split={"stratify": False})
    inputs, _ = tensors(data)
    filled = inputs[:, 0][inputs[:, 1] > 0]
    assert len(filled) > 5
    assert filled.unique().numel() == 1
    present = inputs[:, 0][inputs[:, 1] < 0]
    assert present.quantile(0.5) == pytest.approx(float(filled[0]), abs=0.02)


def test_category_numbers_say_what_one_hot_columns_say() -> None:
    frame = cancer()
    hot, coded = table(frame, drop=USELESS), table(frame, drop=USELESS, codes=True)
    assert (hot.categories, coded.categories) == ((), (5, 3))
    assert (hot.inputs, coded.inputs) == (37, 31)
    for part in hot.parts:
        columns = tensors(hot, part)[0][:, 31:].split([4, 2], dim=1)
        expected = torch.stack([column.argmax(1) + 1 for column in columns], dim=1)
        assert torch.equal(tensors(coded, part)[1], expected)


def test_rare_categories_are_one_and_unseen_ones_none_or_the_rare_one() -> None:
    names = ["a"] * 60 + ["b"] * 60 + ["c", "d", "e"] * 2
    frame = pd.DataFrame({"k": names, "row": range(126), "y": np.tile([0.5, 1.5], 63)})
    data = table(frame, "y", drop=["row"], categories=["k"], codes=True, task="regression")
    assert data.categories == (4,)
    for part in data.parts:
        numbers = tensors(data, part)[1]
        assert set(numbers.unique().tolist()) <= {1, 2, 3}
    late = pd.DataFrame({"k": ["a", "b"] * 50 + ["z"] * 50, "t": range(150), "y": np.tile([0.5, 1.5], 75)})
    tested = tensors(table(late, "y", split={"time": "t"}, codes=True, task="regression", categories=["k"]), "test")
    assert set(tested[1].unique().tolist()) == {0}


# -- splits --------------------------------------------------------------------------------------------------------


def marked(rows: int = 300) -> pd.DataFrame:
    """Rows that can be told apart by a number that is kept."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"mark": generator.permutation(rows) / 7, "other": generator.normal(size=rows)})
    return frame.assign(patient=[f"p{row // 5}" for row in range(rows)], y=np.arange(rows) % 2)


def rows_of(data: TableData, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each part, found again by the order of their marks."""
    marks = torch.cat([tensors(data, part)[0][:, 0] for part in data.parts])
    ranks = marks.argsort().argsort().split([len(data.parts[part]) for part in data.parts])
    by_mark = frame.sort_values("mark")
    return {part: by_mark.iloc[numbers.numpy()] for part, numbers in zip(data.parts, ranks, strict=True)}


def test_rows_of_a_group_stay_in_one_part() -> None:
    frame = marked()
    parts = rows_of(table(frame, "y", split={"group": "patient"}), frame)
    groups = [set(rows["patient"]) for rows in parts.values()]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert sum(map(len, parts.values())) == 300
    assert [len(found) for found in groups] == [36, 12, 12]


def test_a_split_by_time_trains_on_the_earliest_rows() -> None:
    frame = marked()
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.random.default_rng(1).permutation(300) // 3, "D")
    for times in (frame["day"], frame["day"].astype(str), frame["day"].dt.strftime("%d %B %Y")):
        parts = rows_of(table(frame.assign(day=times), "y", split={"time": "day"}, drop=["patient"]), frame)
        assert [len(rows) for rows in parts.values()] == [180, 60, 60]
        assert parts["train"]["day"].max() < parts["validation"]["day"].min()
        assert parts["validation"]["day"].max() < parts["test"]["day"].min()


def test_shares_are_of_all_rows_and_classes_alike_in_all_parts() -> None:
    frame = marked()
    data = table(frame, "y", drop=["patient"], validation=0.3, test=0.1)
    assert [len(data.parts[part]) for part in ("train", "validation", "test")] == [180, 90, 30]
    assert [float(tensors(data, part)[-1].double().mean()) for part in data.parts] == [0.5, 0.5, 0.5]


# -- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, r"'patient_id': it numbers the rows; 'note': text of 568 .* drop: \['patient_id', 'note'\]; keep a quant"),
        ({"drop": ["patient"]}, "drop: the table has no column 'patient'; did you mean patient_id"),
        ({"target": "diag"}, "target: the table has no column 'diag'"),
        ({"drop": USELESS, "split": {"by": "ward"}}, "it has one of stratify, group, time, as in {group: COLUMN}"),
        ({"drop": USELESS, "split": {"group": True}}, "split.group is True; it is the name of a column"),
        ({"drop": USELESS, "split": {"group": "ward"}}, "split.group: 'ward' has no value in 142 rows"),
        ({"drop": USELESS, "split": {"group": "smoker"}}, "2 groups cannot be split|1 groups cannot be split"),
        ({"drop": USELESS, "split": {"time": "smoker"}}, "split.time: 'smoker' has"),
        ({"drop": USELESS, "validation": 0.6, "test": 0.4}, "validation is 0.6 and test is 0.4; these are shares of"),
        ({"drop": USELESS, "numbers": ["ward"]}, "column 'ward' holds values such as 'north', not numbers"),
        ({"drop": USELESS, "task": "regression"}, "has values such as 'malignant'; a regression needs numbers"),
    ],
)
def test_a_table_that_cannot_be_learned_from_as_asked_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        table(cancer(), **arguments)


def test_dates_are_refused_with_what_to_do() -> None:
    frame = cancer().assign(day=pd.date_range("2020-01-01", periods=569).strftime("%d.%m.%Y"))
    with pytest.raises(
        DataError, match=r"'day': it holds dates; .*turn dates into numbers, or split by them: split: {t"
    ):
        table(frame, drop=USELESS)
    with pytest.raises(DataError, match="infinite values"):
        table(cancer().assign(x=[np.inf, *range(568)]), drop=USELESS)
    with pytest.raises(DataError, match="the target 'day' holds dates; turn it into numbers"):
        table(frame, "day", drop=USELESS)


def study(**sections: Any) -> dict[str, Any]:
    arguments = {"path": cancer(), "target": "diagnosis", "drop": USELESS}
    return yaml_free() | {"data": {"name": "table", "init_args": arguments}} | sections


def test_the_study_must_fit_what_the_target_turns_out_to_be() -> None:
    quantity = {"name": "table", "init_args": {"path": load_diabetes(as_frame=True).frame, "target": "target"}}
    space = {"weight_decay": {"low": 0.0, "high": 1.0}, "label_smoothing": {"low": 0.0, "high": 0.2}}
    with pytest.raises(BuildError, match=r"the data make this a regression with r2: space.label_smoothing"):
        wdsearch.run(study(data=quantity, space=space), progress=False)
    with pytest.raises(
        BuildError, match=r"objective.minimize.* names 'gap_accuracy'; did you mean gap_balanced_accuracy"
    ):
        wdsearch.run(study(objective={"minimize": "gap_accuracy"}), progress=False)
    with pytest.raises(StudyFileError, match=r"table needs path and target, as in init_args: {path: "):
        load_study(study(data="table"))
    arguments = study()["data"]["init_args"] | {"split": {"group": "ward"}}
    config = load_study(study(data={"name": "table", "init_args": arguments}))
    with pytest.raises(BuildError, match=re.escape("data: split.group: 'ward' has no value in 142 rows")):
        build_data(config)


# -- class weights and embeddings, fused ---------------------------------------------------------------------------


class OwnLoss(RegularizedModule):
    def loss(self, outputs: Any, targets: Any) -> Any:
        return outputs.square().mean()


def test_class_weights_are_scikit_learns_or_by_name() -> None:
    data = table(cancer(), drop=USELESS, class_weight="balanced")
    targets = tensors(data)[-1].numpy()
    expected = compute_class_weight("balanced", classes=np.arange(2), y=targets)
    assert data.class_weights == pytest.approx(tuple(expected))
    assert table(cancer(), drop=USELESS, class_weight={"malignant": 3}).class_weights == (1.0, 3.0)
    for wrong, text in (
        ({"malign": 3}, "names malign; the classes are benign, malignant"),
        ("even", "is 'even'; it is"),
    ):
        arguments = study()["data"]["init_args"] | {"class_weight": wrong}
        with pytest.raises(BuildError, match=text):
            wdsearch.run(study(data={"name": "table", "init_args": arguments}), progress=False)
    arguments = study()["data"]["init_args"] | {"class_weight": "balanced"}
    config = load_study(study(data={"name": "table", "init_args": arguments}, model=OwnLoss))
    with pytest.raises(BuildError, match="OwnLoss has a loss of its own, which would not know of them; leave class_w"):
        TrialFactory(config, build_data(config)).module(Configuration(1e-3, {}, {"network": torch.nn.Linear(37, 2)}))


@pytest.mark.parametrize("model", ["mlp", "residual_mlp", "transformer"])
def test_a_fused_trial_of_a_table_equals_training_it_alone(model: str) -> None:
    small = {
        "mlp": {"hidden": [9]},
        "residual_mlp": {"width": 8, "blocks": 1},
        "transformer": {"width": 4, "blocks": 1},
    }
    arguments = study()["data"]["init_args"] | {"class_weight": "balanced", "batch_size": 90}
    sections = {"data": {"name": "table", "init_args": arguments}, "model": {"name": model, "init_args": small[model]}}
    config = load_study(study(**sections, optimizer={"name": "adamw", "lr": 1e-3}))

    def factory() -> TrialFactory:
        return TrialFactory(config, build_data(config))

    def build(made: TrialFactory, number: int) -> RegularizedModule:
        strengths = {"weight_decay": 0.1 * number, "dropout": 0.1 * number, "label_smoothing": 0.05 * number}
        return made.module(Configuration(1e-4 * (number + 1), strengths, {}))

    made = factory()
    assert (made.data.inputs == 31) == (model != "mlp"), "categories are embedded where a network takes them"
    ends = train_fused({number: build(made, number) for number in range(3)}, made.data, 3)
    for number, state in ends.states.items():
        alone = factory()
        module = build(alone, number)
        trainer = train_alone(module, alone.data, 3)
        assert largest_difference(module.state_dict(), state) < 1e-9, number
        for key, value in ends.epochs[number][-1].metrics.items():
            assert value == pytest.approx(float(trainer.callback_metrics[key]), abs=1e-9), (number, key)


def test_a_weighted_trial_is_what_torchs_weighted_loss_gives() -> None:
    arguments = study()["data"]["init_args"] | {"class_weight": {"malignant": 4}, "batch_size": 400}
    config = load_study(study(data={"name": "table", "init_args": arguments}, model={"name": "mlp"}))
    factory = TrialFactory(config, build_data(config))
    module = factory.module(Configuration(1e-3, {"weight_decay": 0.5}, {})).double()
    inputs, targets = tensors(factory.data)  # type: ignore[arg-type]
    weight = torch.tensor([1.0, 4.0]).double()
    outputs = module(inputs.double()).detach()
    expected = torch.nn.CrossEntropyLoss(weight)(outputs, targets)
    assert float(module.loss(outputs, targets)) == pytest.approx(float(expected), rel=1e-12)
