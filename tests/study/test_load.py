"""Study files: all faults at once, each with its line, what was given and what is allowed."""

import copy
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import optuna
import pytest
from optuna.samplers import RandomSampler
from support.studies import GOOD, STUDIES, faults, yaml_free
from torch import nn

from wdsearch.datasets import DATASETS
from wdsearch.search.ask import build_pruner
from wdsearch.study.file import StudyFileError
from wdsearch.study.load import load_study
from wdsearch.study.space import baseline, configuration, distributions

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
metric: acuracy
tracking: mlflw
schedule:
  cron: 0 25 * * 1
  on: slrm
"""
WORDS = re.findall(
    r"\S+", """null .nan .inf true off [] {} [1] {a: '' "1" x -1 0 2 1e-6 1e400 !!int *a <<: 1_0 010 @ \0"""
)
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
    15: "budget.trials is 'many'; allowed is a whole number",
    16: "search.pruner is 'halvin'; did you mean halving?",
    17: "trainer.threads is 'lots'; allowed is 'auto' or a whole number",
    18: "metric is 'acuracy'; allowed is 'accuracy', 'balanced_accuracy', 'r2', 'rmse' or 'mae'; did you mean accuracy?",
    19: "tracking is 'mlflw'; did you mean mlflow?",
    21: "schedule.cron is '0 25 * * 1'; allowed is another hour",
    22: "schedule.on is 'slrm'; did you mean slurm?",
}


def test_all_faults_of_a_file_come_at_once_with_their_lines(tmp_path: Path) -> None:
    found = faults(BAD, tmp_path).splitlines()
    for line, text in FAULTS.items():
        assert any(fault.startswith(f"a.yaml:{line}: {text}") for fault in found), (text, found)


@pytest.mark.parametrize(
    ("section", "faults_of_keys"),
    [
        ("data: {name: digits, split_seed: -1, init_args: {bach_size: 3}}", ("split_seed is -1", "mean batch_size?")),
        (
            "model: {name: mlp, init_arg: {}, init_args: {hiden: []}}",
            ("did you mean init_args?", "did you mean hidden?"),
        ),
        ("optimizer: {lr: -1, momentum: 0.9}", ("optimizer.lr is -1", "optimizer.momentum belongs to sgd")),
        ("objective: {minimize: val_los, goal: gap}", ("did you mean val_loss?", "objective.goal is not a known key")),
        ("trainer: {accelerator: gpuu, devices: 2}", ("did you mean gpu?", "trainer.devices is 2")),
        ("tracking: {name: jsonl, foldr: x, folder: 3}", ("did you mean folder?", "folder is 3; allowed is text")),
        (
            "schedule: {cron: 9, on: kubernetes, options: {cpus: 0, imag: a}}",
            ("cron is 9", "cpus is 0; allowed is a number above 0", "image is missing", "did you mean image?"),
        ),
    ],
)
def test_a_fault_of_a_section_hides_none_of_its_other_keys(
    tmp_path: Path, section: str, faults_of_keys: tuple[str, ...]
) -> None:
    key = section.partition(":")[0]
    others = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(f"{key}:"))
    line = others.count("\n") + 1
    text = faults(f"{others}{section}\n", tmp_path)
    assert text.count("\n") + 1 == len(faults_of_keys), text
    for fault in faults_of_keys:
        assert any(one.startswith(f"a.yaml:{line}: {key}.") and fault in one for one in text.splitlines()), (
            fault,
            text,
        )


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
        (GOOD.replace("{name: digits}", "7"), "a.yaml:2: data is 7; allowed is a name or a mapping"),
        (GOOD.replace("{name: digits}", "{}"), "data takes either `name`"),
        (GOOD.replace("off: true", "off: 3x"), "space.weight_decay.off is '3x'; allowed is true or false"),
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
    study = yaml_free()
    before = copy.deepcopy(study)
    assert load_study(study, ["space.l2.high=2"]).space["l2"].high == 2
    assert study == before


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD.replace("10,", "1" + "0" * 400 + ","), "space.weight_decay.high is 1000000"),
        (GOOD.replace("1e-4", "true"), "space.weight_decay.low is true; allowed is a finite number"),
        (GOOD.replace("1e-4", '"1e-4"'), "space.weight_decay.low is '1e-4'; allowed is a finite number"),
        (GOOD.replace("1e-4", "null"), "space.weight_decay has only one of low and high; give both"),
        (
            GOOD.replace("{low: 1e-4, high: 10, log: true, off: true}", "0.1"),
            "a.yaml:4: space is {'weight_decay': 0.1}",
        ),
        (GOOD.replace("trials: 8", "trials: 8.0"), "budget.trials is 8.0; allowed is a whole number"),
        (GOOD.replace("trials: 8", "trials: !!bool maybe"), "a.yaml:6: 'maybe' is no bool"),
        (GOOD + "seed: true\n", "seed is true; allowed is a whole number"),
        (GOOD + "trainer: {population: 0}\n", "trainer.population is 0; allowed is 'auto' or at least 1"),
        (GOOD + '"a\\nb": 1\n', "a.yaml:7: a\\nb is not a known key"),
        ("[" * 5000, "a.yaml: this is not YAML: it is nested too deeply"),
    ],
)
def test_a_value_of_another_kind_is_refused_rather_than_converted(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in faults(text, tmp_path)


SPACE_FAULTS = {
    "dropout: {}": "space.dropout takes a number, or low and high, or choices",
    "dropout: {low: 0.1, high: 0.9, step: 0.3}": "step is 0.3, which does not divide 0.1 to 0.9; give high: 0.7",
    "early_stopping: {low: 2, high: 9, step: 0.5}": "a range of whole numbers takes whole steps",
    "early_stopping: {low: 2, high: 9, step: 50}": "step is 50, more than from 2 to 9; give a smaller one",
    "dropout: {choices: [0.1, 0.1]}": "space.dropout.choices holds 0.1 twice",
    "dropout: {timescale: [1, 2]}": "only weight_decay has a timescale",
    "lr: {low: 0.1, high: 1, off: true}": "space.lr.off: only a regularizer has it",
    "model.hidden: {choices: [[.nan]]}": "space.model.hidden.choices[0] is [nan]; allowed are finite numbers",
    "model.hidden: {choices: [8]}": "choices[0] is 8; allowed is a list of whole numbers",
    "model.activation: {choices: [relu, gleu]}": "choices[1] is 'gleu'; mlp refuses it: activation is 'gleu'; allowed",
}


@pytest.mark.parametrize("dimension", SPACE_FAULTS)
def test_a_dimension_that_no_trial_could_take_is_refused(tmp_path: Path, dimension: str) -> None:
    found = faults(GOOD.replace("budget", f"  {dimension}\nbudget"), tmp_path)
    assert found.startswith("a.yaml:6: ")
    assert SPACE_FAULTS[dimension] in found
    assert "\n" not in found, "one mistake is one fault"


def test_a_fault_in_one_section_hides_none_in_another(tmp_path: Path) -> None:
    bad = GOOD.replace("digits", "[1]").replace("high: 10", "high: -1") + "search: {batch: 0, sampler: tqe}\n"
    found = faults(bad, tmp_path, "seed=-1", "nonsense", "budget.epochs=0")
    lines = [fault.split(" ")[0] for fault in found.splitlines()]
    assert lines == ["a.yaml:2:", "a.yaml:5:", "a.yaml:5:", "a.yaml:7:", "a.yaml:7:", "--set", "--set", "--set"]


def test_an_override_takes_the_place_of_the_files_lines(tmp_path: Path) -> None:
    override = "space.weight_decay={low: 0, high: -1}"
    for fault in faults(GOOD, tmp_path, override).splitlines():
        assert fault.startswith(f"--set {override}: ")


def test_a_loaded_study_can_be_overridden_too() -> None:
    config = load_study({**yaml_free(), "search": {"sampler": "qmc"}})
    again = load_study(config, ["budget.trials=9"])
    assert (again.budget.trials, config.budget.trials) == (9, 1)
    assert again.search.sampler == config.search.sampler


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        GOOD.replace("{low", "&decay {low").replace("budget", "  l2: &l2 {<<: *decay, high: 1}\n  l1: *l2\nbudget")
    )
    space = load_study(path).space
    assert [space[key].high for key in ("weight_decay", "l2", "l1")] == [10, 1, 1]


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(GOOD + "seed: 010\noptimizer: {lr: 1e-3}\n")
    config = load_study(path)
    assert (config.seed, config.optimizer.lr) == (10, 1e-3)
    assert "seed is '1:30'" in faults(GOOD + "seed: 1:30\n", tmp_path)


def test_aliases_of_aliases_do_not_explode(tmp_path: Path) -> None:
    rows = [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in itertools.pairwise("abcdefghij")]
    assert "this is too large for a study file" in faults("\n".join(["a: &a [1]", *rows]), tmp_path)


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"model": [1]}, "model is [1]; allowed is a name or a mapping"),
        ({"data": object()}, "allowed is a name, a class_path or a LightningDataModule object"),
        ({"search": {"sampler": object()}}, "allowed is a name or a sampler of Optuna's"),
        ({"search": {"pruner": object()}}, "allowed is a name or a pruner of Optuna's"),
        ({"search": {"sampler": {"name": "tpe", "n_startup_trials": "many"}}}, "allowed is a whole number"),
        ({"search": {"sampler": {"name": "tpe", "seed": 1}}}, "it comes from the study's own seed"),
        ({"search": {"pruner": {"name": "hyperband", "reduction_factor": 1}}}, "hyperband refuses its options"),
        ({"model": {"class_path": "nowhere.Net"}}, "there is no module nowhere; it is looked for in the installed"),
        ({"model": {"class_path": "math.pi"}}, "it is no class but 3.14"),
        ({"model": {"name": "mlp", "init_args": {"activation": "rleu"}}}, "mlp refuses them: activation is 'rleu'"),
        ({"model": nn.Linear(64, 10), "space": {"model.hidden": [8], "l2": {"low": 0, "high": 1}}}, "already built"),
        (
            {"model": {"class_path": "torch.nn.Bilinear"}, "space": {"model.bis": {"choices": [True, False]}}},
            "bis is not an argument of Bilinear; did you mean bias?",
        ),
    ],
)
def test_what_python_brings_is_checked_as_well(section: dict[str, object], fault: str) -> None:
    with pytest.raises(StudyFileError) as error:
        load_study({**yaml_free(), **section})
    assert fault in str(error.value)
    assert str(error.value).startswith("study: ")


def test_own_objects_are_taken_as_they_are_and_stored_by_the_names_of_their_types() -> None:
    network, data, sampler = nn.Linear(64, 10), DATASETS["digits"](), RandomSampler()
    config = load_study({**yaml_free(), "model": network, "data": data, "search": {"sampler": sampler}})
    assert config.model is network
    assert config.data is data
    assert config.search.sampler is sampler
    for dumped in (config.dump(), config.model_dump(exclude_unset=True)):
        assert (dumped["model"], dumped["data"], dumped["search"]["sampler"]) == ("Linear", "Digits", "RandomSampler")
        json.dumps(dumped)


def test_a_file_that_is_no_yaml_does_not_wait_for_torch() -> None:
    code = "import sys, wdsearch.study.load; assert not {'torch', 'lightning', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_mutation_of_a_study_file_raises_anything_but_its_faults(tmp_path: Path) -> None:
    """A mutated file is a sound study, all the way to a configuration, or a StudyFileError with one line a fault."""
    path, random = tmp_path / "a.yaml", Random(0)
    for _ in range(150):
        path.write_text(mutated(random))
        try:
            config = load_study(path)
        except StudyFileError as error:
            assert len(str(error).splitlines()) == len(error.faults)  # noqa: PT017
            continue
        assert build_pruner(config)
        study = optuna.create_study(sampler=RandomSampler(0))
        trial = study.ask(fixed_distributions=distributions(config))
        assert configuration(config, trial.params, 100.0).strengths.keys() == baseline(config).strengths.keys()


def mutated(random: Random) -> str:
    """A study file in which one to three words are another word, or a character is cut."""
    text = GOOD.replace("budget", "  model.hidden: {choices: [[8], [4, 4]]}\n  dropout: {low: 0, high: 0.5}\nbudget")
    for _ in range(random.randint(1, 3)):
        word = random.choice([*re.finditer(r"[^\s{}\[\],:]+", text)])
        text = text[: word.start()] + random.choice(WORDS) + text[word.end() :]
    cut = random.randrange(len(text)) if random.random() < 0.2 else len(text)
    return text[:cut] + text[cut + 1 :]


def test_every_auto_of_the_trainer_may_be_written() -> None:
    written = dict.fromkeys(("accelerator", "precision", "threads", "population"), "auto")
    assert load_study(yaml_free() | {"trainer": written}).trainer == load_study(yaml_free()).trainer
