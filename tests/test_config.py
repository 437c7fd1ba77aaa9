"""Study files: all faults at once, each with its line, what was given and what is allowed."""

import copy
from pathlib import Path

import pytest

from wdsearch.config import load_study
from wdsearch.studyfile import StudyFileError

STUDIES = sorted((Path(__file__).parent.parent / "studies").glob("*.yaml"))
GOOD = """study: good
data: {name: digits}
model: {name: mlp}
space:
  weight_decay: {low: 1e-4, high: 10, log: true, off: true}
budget: {trials: 8, epochs: 2}
"""
BAD = """study: a b
data: {name: mnst1d}
model: {name: mlp, init_args: {hiden: [1]}}
optimizer: {name: adamw, momentum: 0.5, lr: -1, shedule: cosine}
space:
  lr: {low: 3e-2, high: 3e-4, log: true}
  weight_decay: {timescale: [0.01], off: true}
  dropout: {low: 0.0, high: 1.2}
  dropot: 0.1
  l2: {low: 0, high: 1, log: true}
  early_stopping: {low: 1.5, high: 4}
  l1: {high: 1}
  model.width: {choices: [1]}
objective: {minimize: val_los}
budget: {trials: many, epochs: 0}
search: {batch: 16, sampler: {name: tpe, n_startup: 3, seed: 4}, pruner: halvin}
trainer: {threads: lots}
"""
FAULTS = {
    1: "study is 'a b'; allowed are letters, digits and _ - .",
    2: "data.name is 'mnst1d'; did you mean mnist1d?",
    3: "model.init_args.hiden is not an argument of mlp; did you mean hidden?",
    4: "optimizer.shedule is not a known key; did you mean schedule?",
    6: "space.lr runs from 0.03 to 0.0003; low must be below high",
    7: "space.weight_decay.timescale[1] is missing",
    8: "space.dropout.high is 1.2; a dropout rate lies in [0, 1)",
    9: "space.dropot is not a known key; did you mean dropout?",
    10: "space.l2.low is 0; a log range begins above 0",
    11: "space.early_stopping.low is 1.5; early_stopping counts epochs",
    12: "space.l1 has only one of low and high; give both",
    13: "space.model.width: width is not an argument of mlp",
    14: "objective.minimize names 'val_los'; did you mean val_loss?",
    15: "budget.trials is 'many'; allowed is a valid integer",
    16: "search.pruner is 'halvin'; did you mean halving?",
    17: "trainer.threads is 'lots'; allowed is 'auto' or a valid integer",
}


def faults(text: str, tmp_path: Path, *overrides: str) -> str:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(StudyFileError) as error:
        load_study(path, overrides)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_all_faults_of_a_file_come_at_once_with_their_lines(tmp_path: Path) -> None:
    found = faults(BAD, tmp_path).splitlines()
    for line, text in FAULTS.items():
        assert any(fault.startswith(f"a.yaml:{line}: {text}") for fault in found), (text, found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "a.yaml:1: the file is empty; a study file is a mapping that begins with `study: NAME`"),
        ("- 1", "a.yaml:1: the file is a list"),
        ("a: [", "a.yaml:1: this is not YAML"),
        ("study: a\nstudy: b\n", "a.yaml:2: study is given twice, first in line 1"),
        ("study: &a {b: *a}\n", "a.yaml:1: this value contains itself"),
        ("study: a\n", "a.yaml:1: data is missing; add `data: ...`"),
        (GOOD.replace("10,", ".inf,"), "space.weight_decay.high is inf"),
        (GOOD.replace("{name: digits}", "7"), "a.yaml:2: data is 7; allowed is a mapping"),
        (GOOD.replace("{name: digits}", "{}"), "data takes either `name`"),
        (GOOD.replace("off: true", "off: 3x"), "space.weight_decay.off is '3x'; allowed is a valid boolean"),
        (GOOD.replace("log: true", "timescale: [1, 2]"), "weight_decay takes a number, or low and high, or choices"),
        (GOOD + "metric: r2\n", "a.yaml:7: metric is 'r2', which is for regression; for classification: accuracy"),
        (GOOD + "task: regression\nobjective: {minimize: val_accuracy}\n", "objective.minimize names 'val_accuracy'"),
        (
            GOOD + "objective: {minimize: [val_loss, gap]}\nsearch: {pruner: median}\n",
            "with several goals nothing can be",
        ),
        (GOOD + "objective: {constraints: {gap: {}}}\n", "objective.constraints.gap needs max or min"),
        (
            GOOD + "optimizer: {name: sgd, betas: [0.9, 0.99]}\n",
            "optimizer.betas belongs to adamw; this study uses sgd",
        ),
    ],
)
def test_a_fault_says_what_is_allowed(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in faults(text, tmp_path)


def test_a_missing_file_names_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(GOOD)
    with pytest.raises(StudyFileError, match=r"there is no such file; beside it: .*b\.yaml"):
        load_study(tmp_path / "c.yaml")


def test_overrides_set_any_key_and_are_named_in_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(GOOD)
    config = load_study(path, ["budget.trials=3", "space.dropout.low=0.1", "space.dropout.high=5e-1", "seed=4"])
    assert (config.budget.trials, config.space["dropout"].high, config.seed) == (3, 0.5, 4)
    assert faults(GOOD, tmp_path, "budget.trials=x").startswith("--set budget.trials=x: budget.trials is 'x'")
    assert "an override is KEY=VALUE" in faults(GOOD, tmp_path, "budget.trials")
    choice = load_study(path, ["space.model.hidden={choices: [[8], [16, 8]]}"])
    assert choice.space["model.hidden"].choices == [[8], [16, 8]]


def test_numbers_are_numbers_and_off_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        GOOD.replace("{low: 1e-4, high: 10, log: true, off: true}", "{choices: [1e-6, 1e-3, 0.1], off: true}")
    )
    dimension = load_study(path).space["weight_decay"]
    assert dimension.choices == [1e-6, 1e-3, 0.1]
    assert dimension.off


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_ready_study_is_sound(path: Path) -> None:
    config = load_study(path)
    again = load_study(config.dump())
    assert again.dump() == config.dump()


def test_a_mapping_is_left_as_it_was() -> None:
    study = {
        "study": "x",
        "data": "digits",
        "model": "mlp",
        "space": {"l2": {"low": 0, "high": 1}},
        "budget": {"trials": 1, "epochs": 1},
    }
    before = copy.deepcopy(study)
    assert load_study(study, ["space.l2.high=2"]).space["l2"].high == 2
    assert study == before
