"""Arrays, images and named sets of the user's: read whole or batch by batch, the numbers are the same."""

import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits
from support.samples import batches, digit_images, mnist_folder
from support.studies import yaml_free

import wdsearch
from wdsearch.datasets import DATASETS, ArraysData, ImageFolder
from wdsearch.errors import BuildError, DataError
from wdsearch.study.build import build_data, describe_data
from wdsearch.study.load import load_study

PARTS = ("train", "validation", "test")


def arrays(X: Any = None, y: Any = None, **arguments: Any) -> ArraysData:
    digits = load_digits(return_X_y=True)
    data = ArraysData(digits[0] if X is None else X, digits[1] if y is None else y, **arguments)
    data.setup()
    return data


def images(path: Path | None = None, **arguments: Any) -> ImageFolder:
    data = ImageFolder(path or digit_images(), **({"size": 8, "channels": 1} | arguments))
    data.setup()
    return data


# -- arrays --------------------------------------------------------------------------------------------------------


def test_arrays_of_every_kind_are_the_same_data(tmp_path: Path) -> None:
    X, y = load_digits(return_X_y=True)
    stored = np.memmap(tmp_path / "X", np.float64, "w+", shape=X.shape)
    stored[:] = X
    kinds = [
        (X.tolist(), y.tolist()),
        (torch.tensor(X), torch.tensor(y)),
        (pd.DataFrame(X), pd.Series(y, name="digit")),
        (stored, y.reshape(-1, 1)),
        (X.astype(np.uint8), y.astype(str)),
    ]
    expected = batches(arrays())
    for inputs, targets in kinds:
        for one, other in zip(batches(arrays(inputs, targets)), expected, strict=True):
            assert torch.equal(one, other)


def test_features_are_standardised_by_the_training_rows() -> None:
    data = arrays()
    X, _ = load_digits(return_X_y=True)
    inputs = {part: data.parts[part].tensors[0].double() for part in PARTS}
    assert torch.cat(list(inputs.values())).shape == X.shape
    assert inputs["train"].mean(0).abs().max() < 1e-6
    np.testing.assert_allclose(inputs["train"].std(0, unbiased=False)[[2, 20, 50]], 1, atol=1e-6)


def test_channels_are_standardised_as_one() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal([[[3.0]], [[-1.0]]], [[[0.1]], [[10.0]]], size=(200, 2, 4, 5))
    data = arrays(X, np.arange(200) % 2)
    rows = data.parts["train"].tensors[0].reshape(-1, 2, 20).double()
    assert data.shape == (2, 4, 5)
    assert data.inputs == 40
    np.testing.assert_allclose(rows.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std((0, 2), unbiased=False), 1, atol=1e-5)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_rows_read_batch_by_batch_are_those_in_memory(tmp_path: Path, task: str) -> None:
    X, y = load_digits(return_X_y=True) if task == "classification" else load_diabetes(return_X_y=True)
    whole, streamed = (arrays(X, y, in_memory=in_memory, batch_size=64) for in_memory in (True, False))
    assert streamed.about == f"{whole.about}; read batch by batch"
    assert (streamed.task, streamed.inputs, streamed.outputs) == (task, X.shape[1], whole.outputs)
    for one, other in zip(batches(whole), batches(streamed), strict=True):
        assert torch.equal(one, other)


def test_what_takes_much_of_the_memory_is_read_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1797 * 64 * 4 * 4})())
    assert arrays().about.endswith("read batch by batch")
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1798 * 64 * 4 * 4})())
    assert not arrays().about.endswith("read batch by batch")


def test_the_gap_of_streamed_rows_is_measured_on_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wdsearch.datasets._streams.MOST_EVALUATED", 50)
    data = arrays(in_memory=False)
    loader = data.train_eval_dataloader()
    first, again = (torch.cat([inputs for inputs, _ in loader]) for _ in range(2))
    assert len(first) == 50
    assert torch.equal(first, again)
    rows = {row.numpy().tobytes() for inputs, _ in data.train_dataloader() for row in inputs}
    assert {row.numpy().tobytes() for row in first} <= rows


def test_a_study_of_streamed_rows_gives_the_numbers_of_one_in_memory(tmp_path: Path) -> None:
    results = []
    for in_memory in (True, False):
        study = yaml_free() | {
            "data": arrays(in_memory=in_memory),
            "model": "mlp",
            "budget": {"trials": 3, "epochs": 2},
        }
        results.append(wdsearch.run(study, home=tmp_path / str(in_memory), progress=False))
    assert [trial.result for trial in results[0].trials] == [trial.result for trial in results[1].trials]


def test_parts_of_ones_own_are_taken_as_they_are() -> None:
    X, y = load_digits(return_X_y=True)
    data = arrays(X[:1000], y[:1000], validation=(X[1000:1400], y[1000:1400]), test=(X[1400:], y[1400:]))
    assert [len(data.parts[part]) for part in PARTS] == [1000, 400, 397]
    assert data.parts["validation"].targets.tolist() == y[1000:1400].tolist()
    half = arrays(X[:1000], y[:1000], validation=(X[1000:1400], y[1000:1400]), test=0.3)
    assert [len(half.parts[part]) for part in PARTS] == [700, 400, 300]


def test_groups_stay_in_one_part_and_classes_have_names_and_weights() -> None:
    generator = np.random.default_rng(0)
    X, groups = generator.normal(size=(300, 3)), np.arange(300) // 5
    X[:, 0] = groups  # by which they are found again
    names = np.array(["ill", "well"])[generator.integers(0, 2, 300)]
    data = arrays(X, names, groups=groups, class_weight={"ill": 2})
    marks = [set(data.parts[part].tensors[0][:, 0].tolist()) for part in PARTS]
    assert [len(part) for part in marks] == [36, 12, 12]
    assert not marks[0] & marks[1] | marks[0] & marks[2] | marks[1] & marks[2]
    assert (data.classes, data.class_weights) == (("ill", "well"), (2.0, 1.0))


def test_several_quantities_at_once_are_each_standardised() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 4))
    y = np.stack([100 * X[:, 0] + 7, X[:, 1] / 50], axis=1)
    data = arrays(X, y)
    assert (data.task, data.metric, data.outputs) == ("regression", "r2", 2)
    np.testing.assert_allclose(data.parts["train"].targets.std(0, unbiased=False), 1, atol=1e-5)
    study = yaml_free() | {"data": data, "model": {"name": "mlp", "init_args": {"hidden": []}}}
    study |= {"optimizer": {"name": "adamw", "lr": 0.05}, "budget": {"trials": 2, "epochs": 40}}
    baseline = wdsearch.run(study, progress=False).baseline
    assert baseline is not None
    assert baseline.metrics["val_r2"] > 0.99


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"X": np.zeros(9)}, r"X of train has shape \(9,\); it is \(rows, features\), \(rows, channels, length\) or"),
        ({"X": np.array([["a"], ["b"]])}, "holds <U1, not numbers; for tables with categories: wdsearch.TableData"),
        ({"X": np.zeros((5, 2))}, "train has 5 rows of X and 1797 of y; they belong together"),
        (
            {"validation": (np.zeros((5, 2)), np.zeros(5, int))},
            r"rows of validation have shape \(2,\), those of train \(64,",
        ),
        (
            {"validation": (np.zeros((5, 64)), np.full(5, 11))},
            "y of validation has the class 11, which no training row",
        ),
        ({"validation": 1.0}, "validation is 1; these are shares of all rows|test is 0.2 and validation is 1; these"),
        ({"groups": [1, 2]}, "there are 2 groups for 1797 rows of X"),
        ({"y": ["a"] * 1797, "task": "regression"}, "has values such as 'a'; a regression needs numbers"),
        ({"y": np.zeros((1797, 2), int)}, r"y has shape \(1797, 2\) of int64; it has one value a row, or several"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        arrays(**arguments)


# -- images --------------------------------------------------------------------------------------------------------


def test_a_folder_of_images_is_the_digits_that_were_drawn_into_it() -> None:
    data = images()
    assert data.about == "one of 10 classes, 300 images of 8×8"
    assert (data.shape, data.outputs, data.classes[3]) == ((1, 8, 8), 10, "digit 3")
    X, y = load_digits(return_X_y=True)
    drawn = {row.tobytes(): int(target) for row, target in zip(X[:300].astype(np.uint8), y[:300], strict=True)}
    assert float(data.parts["train"].tensors[0].std()) == pytest.approx(1, abs=1e-3)
    for part in PARTS:
        inputs, targets = data.parts[part].tensors
        low, high = data.parts["train"].tensors[0].min(), data.parts["train"].tensors[0].max()
        pixels = ((inputs - low) / (high - low) * 16).round().to(torch.uint8).numpy()
        assert [drawn[row.tobytes()] for row in pixels] == targets.tolist()


def test_images_read_batch_by_batch_are_those_in_memory() -> None:
    whole, streamed = images(in_memory=True), images(in_memory=False)
    for one, other in zip(batches(whole), batches(streamed), strict=True):
        assert torch.equal(one, other)
    config = load_study(yaml_free() | {"data": streamed})
    assert describe_data(config, streamed)["digest"] == describe_data(config, images(in_memory=False))["digest"]


def test_images_are_scaled_cropped_turned_and_coloured(tmp_path: Path) -> None:
    for number in range(10):
        for name, colour in {"red": (255, 0, 0), "blue": (0, 0, 255)}.items():
            (tmp_path / name).mkdir(exist_ok=True)
            image = Image.new("RGB", (90, 40), colour)
            image.paste((0, 255, 0), (0, 0, 3, 40))  # cropped away
            image.save(tmp_path / name / f"{number}.jpg", quality=95)
    data = images(tmp_path, size=(10, 12), channels=3)
    assert data.shape == (3, 10, 12)
    means = data.parts["train"].tensors[0].reshape(-1, 3, 120).mean(2)
    red = data.parts["train"].targets == data.classes.index("red")
    assert torch.equal(means[:, 0] > 0, red)
    assert torch.equal(means[:, 2] > 0, ~red)
    assert data.parts["train"].tensors[0].reshape(-1, 3, 120)[:, 1].std(1).max() < 0.5, "no green is left at the side"
    turned = Image.new("L", (4, 8))
    turned.paste(255, (0, 0, 4, 4))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90° to be seen
    turned.save(tmp_path / "red" / "0.png", exif=exif)
    read = images(tmp_path, size=(4, 8)).sources()["train"][0]
    number = [file.name for file in read.files].index("0.png")
    assert read.read(np.array([number]))[0, 0, 0].tolist() == [0] * 4 + [255] * 4


def test_folders_of_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, count in {"train": 30, "valid": 9, "test": 6}.items():
        for name in ("a", "b"):
            (tmp_path / part / name / "deeper").mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / "deeper" / f"{number}.png")
    assert [len(images(tmp_path).parts[part]) for part in PARTS] == [60, 18, 12]
    (tmp_path / "valid" / "c").mkdir()
    with pytest.raises(DataError, match="valid has the class c, which the training images do not have"):
        images(tmp_path)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("L", (8, 8), number).save(tmp_path / name / f"{number}.png")
    (tmp_path / "b" / "3.png").write_bytes((tmp_path / "b" / "3.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"b/3\.png cannot be read as an image: .*; mend it or take it away"):
        images(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"c has no images: files that end in .png, .jpg"):
        images(tmp_path)
    with pytest.raises(DataError, match=r"a has none where a folder for each class is expected, as in .*a/cats/1.png"):
        images(tmp_path / "a")
    with pytest.raises(DataError, match="nowhere is not a folder"):
        images(tmp_path / "nowhere")


def test_a_changed_image_is_another_data_set(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(20):
            Image.new("L", (8, 8), number).save(tmp_path / name / f"{number}.png")
    config = load_study(yaml_free())

    def digest() -> str:
        return describe_data(config, images(tmp_path, in_memory=False))["digest"]

    before = digest()
    assert digest() == before
    Image.new("L", (8, 8), 99).save(tmp_path / "a" / "7.png")
    assert digest() != before


def test_a_study_file_names_a_folder_of_images_as_seen_from_itself(tmp_path: Path) -> None:
    (tmp_path / "pictures").symlink_to(digit_images())
    text = "study: s\ndata: {name: images, init_args: {path: pictures, size: [8, 8], channels: 1}}\nmodel: convnet\n"
    text += "space: {dropout: {low: 0, high: 0.5}}\nbudget: {trials: 2, epochs: 1}\n"
    (tmp_path / "s.yaml").write_text(text)
    assert build_data(load_study(tmp_path / "s.yaml")).shape == (1, 8, 8)
    assert wdsearch.run(tmp_path / "s.yaml", progress=False).counts["complete"] == 2
    (tmp_path / "s.yaml").write_text(text.replace("channels: 1", "channels: 2"))
    config = load_study(tmp_path / "s.yaml")
    with pytest.raises(BuildError, match="channels is 2; it is 1 for gray or 3 for colours"):
        build_data(config)


# -- by name -------------------------------------------------------------------------------------------------------


def test_without_a_network_a_named_set_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "no_proxy"):
        monkeypatch.setenv(name, "" if name == "no_proxy" else "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    with pytest.raises(
        DataError, match=r"credit-g cannot be downloaded from openml.org: .*; run where there is a netw"
    ):
        DATASETS["openml"](dataset="credit-g", root=tmp_path).setup()


def test_a_set_of_torchvision_has_its_own_test_rows() -> None:
    try:
        import torchvision  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match=r"torchvision is not installed: pip install \"wdsearch\[vision\]\""):
            DATASETS["torchvision"](dataset="MNIST").setup()
        return
    data = DATASETS["torchvision"](dataset="MNIST", root=mnist_folder())
    data.setup()
    assert [len(data.parts[part]) for part in PARTS] == [160, 40, 100]
    assert (data.shape, data.outputs, data.classes[4]) == ((1, 28, 28), 10, "4 - four")
    with pytest.raises(DataError, match=r"torchvision has no data set 'MNST'; did you mean MNIST"):
        DATASETS["torchvision"](dataset="MNST").setup()
