"""The JSON Schema of study files: it says of a file what `load_study` says, as far as JSON Schema can."""

import json
from random import Random
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import BaseModel
from support.mutations import FULL, SHORT, _mutate, _places, _token, _word
from support.studies import GOOD, STUDIES, yaml_free

from wdsearch.datasets import DATASETS
from wdsearch.launch.engines import LAUNCHERS
from wdsearch.models import MODELS
from wdsearch.regularizers import REGULARIZERS
from wdsearch.strategies.pruners import PRUNERS
from wdsearch.strategies.samplers import SAMPLERS
from wdsearch.study.file import StudyFileError, StudySource
from wdsearch.study.json_schema import study_schema
from wdsearch.study.load import load_study
from wdsearch.study.schema import SECTIONS, Dimension, Limit, StudyConfig
from wdsearch.tracking import TRACKERS

SCHEMA = study_schema()
VALIDATORS = [Draft7Validator(SCHEMA), Draft202012Validator(SCHEMA)]
SPACE = "{low: 1e-4, high: 10, log: true, off: true}"
GROUPS = r"{groups: [{match: '^1\.', name: first, timescale: [0.01, 10], off: true}, {match: '.*', value: 0.1}]}"
SOUND = {path.name: path.read_text() for path in STUDIES} | {
    "short forms": GOOD.replace("{name: digits}", "digits").replace("{name: mlp}", "mlp"),
    "every section": FULL,
    "another optimizer, a chosen pruner": SHORT,
    "a sampler in short": GOOD + "search: {sampler: gp}\n",
    "a number in place of a range": GOOD.replace("budget", "  dropout: 0.1\n  gradient_clip: .inf\nbudget"),
    "choices with off": GOOD.replace(SPACE, "{choices: [1e-3, 0.1], off: true}"),
    "a count": GOOD.replace("budget", "  early_stopping: {choices: [3, 9.0, .inf]}\nbudget"),
    "a timescale": GOOD.replace(SPACE, "{timescale: [0.01, 10], off: false, low: null}"),
    "keys without a value": GOOD.replace(SPACE, "{low: 0, high: 1, step: ~, choices: ~, timescale: ~}"),
    "a mapping for a fixed value": GOOD.replace("budget", "  l2: {value: 0.1, choices: null}\nbudget"),
    "arguments of the network": GOOD.replace(
        "budget", "  model.hidden: {choices: [[8], []]}\n  model.dropout: {low: 0, high: 0.5, off: false}\nbudget"
    ),
    "an own class": GOOD.replace(
        "{name: mlp}", "{class_path: torch.nn.Bilinear, name: null, init_args: {in1_features: 3}}"
    ),
    "strengths by group": GOOD.replace(SPACE, GROUPS),
    "dropout by group": GOOD.replace("budget", "  dropout: {groups: [{match: a, low: 0, high: 0.5}]}\nbudget"),
    "no groups": GOOD.replace(SPACE, "{low: 1e-4, high: 1, groups: null}"),
    "what decays by exceptions": GOOD + "optimizer: {decay: {rule: all, exclude: ['norm'], include: []}}\n",
    "what decays by a rule": GOOD + "optimizer: {decay: all}\n",
    "a schedule": GOOD
    + "schedule: {cron: 0 2 * * 1, timezone: Europe/Berlin, overlap: queue, options: {threads: 1}}\n",
    "a schedule in short": GOOD + "schedule: {cron: '@daily', catch_up: none}\n",
    "no schedule": GOOD + "schedule:\n",
    "a schedule on an engine": GOOD + "schedule: {cron: '@daily', on: slurm, options: {partition: gpu}}\n",
    "a tracker": GOOD + "tracking: jsonl\n",
    "a tracker with an option": GOOD + "tracking: {name: jsonl, folder: records}\n",
    "the default tracker": GOOD + "tracking: null\n",
    "several goals": GOOD + "objective: {minimize: val_loss, maximize: [val_accuracy], constraints: {gap: {max: 1}}}\n",
}
BROKEN = {
    "an unknown key": GOOD + "budjet: 1\n",
    "an unknown key in a section": GOOD.replace("epochs: 2", "epochs: 2, hours: 3"),
    "a missing section": GOOD.replace("budget: {trials: 8, epochs: 2}", ""),
    "a wrong type": GOOD.replace("trials: 8", "trials: many"),
    "a list for a mapping": GOOD.replace("{trials: 8, epochs: 2}", "[8, 2]"),
    "an unknown data set": GOOD.replace("digits", "digts"),
    "an unknown data set in short": GOOD.replace("{name: digits}", "digts"),
    "an unknown argument": GOOD.replace("{name: mlp}", "{name: mlp, init_args: {hiden: [1]}}"),
    "an argument of a wrong type": GOOD.replace("{name: mlp}", "{name: mlp, init_args: {hidden: 8}}"),
    "no name": GOOD.replace("{name: mlp}", "{init_args: {}}"),
    "no import path": GOOD.replace("{name: mlp}", "{class_path: Net}"),
    "an unknown sampler": GOOD + "search: {sampler: {name: tqe}}\n",
    "an unknown sampler in short": GOOD + "search: {sampler: tqe}\n",
    "an unknown option": GOOD + "search: {sampler: {name: tpe, n_startup: 3}}\n",
    "another sampler's option": GOOD + "search: {sampler: {name: random, n_startup_trials: 3}}\n",
    "an option of a wrong type": GOOD + "search: {pruner: {name: halving, reduction_factor: three}}\n",
    "an unknown regularizer": GOOD.replace("budget", "  dropot: 0.1\nbudget"),
    "a strength outside its domain": GOOD.replace("budget", "  dropout: {low: 0, high: 1.2}\nbudget"),
    "a fixed strength outside its domain": GOOD.replace("budget", "  l2: -1\nbudget"),
    "text for a number": GOOD.replace("1e-4", "'1e-4'"),
    "yes for true": GOOD.replace("log: true", "log: yes"),
    "a timescale of dropout": GOOD.replace("budget", "  dropout: {timescale: [1, 2]}\nbudget"),
    "a timescale of one number": GOOD.replace(SPACE, "{timescale: [1]}"),
    "an empty list of groups": GOOD.replace(SPACE, "{groups: []}"),
    "a group without an expression": GOOD.replace(SPACE, "{groups: [{low: 1, high: 2}]}"),
    "a group of no form": GOOD.replace(SPACE, "{groups: [{match: a}]}"),
    "a group's timescale of dropout": GOOD.replace(
        "budget", "  dropout: {groups: [{match: a, timescale: [1, 2]}]}\nbudget"
    ),
    "a group outside its domain": GOOD.replace(SPACE, "{groups: [{match: a, low: -1, high: 2}]}"),
    "groups beside a range": GOOD.replace(SPACE, "{low: 1, high: 2, groups: [{match: a, low: 1, high: 2}]}"),
    "groups of what acts on all": GOOD.replace(
        "budget", "  label_smoothing: {groups: [{match: a, value: 0.1}]}\nbudget"
    ),
    "groups within a group": GOOD.replace(SPACE, "{groups: [{match: a, groups: [{match: a, low: 1, high: 2}]}]}"),
    "an unknown rule of decay": GOOD + "optimizer: {decay: some}\n",
    "an unknown exception of decay": GOOD + "optimizer: {decay: {but: [a]}}\n",
    "half a count": GOOD.replace("budget", "  early_stopping: {low: 1.5, high: 4}\nbudget"),
    "off for the learning rate": GOOD.replace("budget", "  lr: {low: 0.1, high: 1, off: true}\nbudget"),
    "an unknown result": GOOD + "objective: {minimize: val_los}\n",
    "an unknown precision": GOOD + "trainer: {precision: 16}\n",
    "an unknown key of a schedule": GOOD + "schedule: {cron: 0 2 * * 1, tz: UTC}\n",
    "a schedule without times": GOOD + "schedule: {timezone: UTC}\n",
    "an unknown tracker": GOOD + "tracking: mlflw\n",
    "an unknown tracker with an option": GOOD + "tracking: {name: jsnol, folder: records}\n",
    "an unknown option of a tracker": GOOD + "tracking: {name: jsonl, foldr: records}\n",
    "another tracker's option": GOOD + "tracking: {name: mlflow, folder: records}\n",
    "an unknown engine": GOOD + "schedule: {cron: '@daily', on: slrm}\n",
    "a name with a space": GOOD.replace("study: good", "study: a b"),
    "an empty space": GOOD.replace(f"  weight_decay: {SPACE}\n", "").replace("space:", "space: {}"),
}


def content(text: str) -> dict[str, Any]:
    return StudySource.from_text(text, "a.yaml").content


def allows(study: dict[str, Any]) -> bool:
    try:
        verdicts = {validator.is_valid(study) for validator in VALIDATORS}
    except ValueError:  # jsonschema cannot print a number of more than 4,300 digits, and wants to where it is wrong
        return False
    assert len(verdicts) == 1, "it means the same in every draft"
    return verdicts.pop()


def is_sound(study: dict[str, Any]) -> bool:
    try:
        load_study(study)
    except StudyFileError:
        return False
    return True


def test_it_is_a_schema_and_is_json() -> None:
    for validator in VALIDATORS:
        validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA
    assert "$ref" not in json.dumps(SCHEMA), "in draft 7 nothing counts beside a reference"


@pytest.mark.parametrize("name", SOUND)
def test_sound_studies_are_allowed(name: str) -> None:
    load_study(content(SOUND[name]))
    assert [error.message for error in VALIDATORS[0].iter_errors(content(SOUND[name]))] == []


def test_studies_from_python_are_allowed() -> None:
    assert allows(yaml_free())
    assert allows(load_study(content(FULL)).dump())


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_studies_are_not_allowed(fault: str) -> None:
    assert not allows(content(BROKEN[fault]))
    assert not is_sound(content(BROKEN[fault]))


def test_every_name_can_be_completed_with_what_it_is() -> None:
    sections = SCHEMA["properties"]
    for section, table in {"data": DATASETS, "model": MODELS}.items():
        assert sections[section]["anyOf"][0]["enum"] == sorted(table)
    for key, choices in {"sampler": SAMPLERS, "pruner": PRUNERS}.items():
        assert sections["search"]["properties"][key]["anyOf"][0]["enum"] == sorted(choices)
    assert sections["tracking"]["anyOf"][0]["enum"] == sorted(TRACKERS)
    assert sections["schedule"]["anyOf"][0]["properties"]["on"]["enum"] == sorted(LAUNCHERS)
    keys = sections["space"]["properties"]
    assert {"lr", *REGULARIZERS, "model.hidden"} <= keys.keys()
    for section in sections.values():
        assert section["description"]
    assert all(keys[key]["defaultSnippets"] for key in ("lr", *REGULARIZERS))


@pytest.mark.parametrize("section", [StudyConfig, Dimension, Limit, *SECTIONS.values()])
def test_every_key_says_what_it_is(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        own = (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and field.annotation.__doc__
        )
        assert field.description or own, name


@pytest.mark.parametrize("key", ["lr", *REGULARIZERS])
def test_what_it_offers_to_insert_is_sound(key: str) -> None:
    (offered,) = SCHEMA["properties"]["space"]["properties"][key]["defaultSnippets"]
    study = yaml_free() | {"space": {key: offered["body"]}}
    load_study(study)
    assert allows(study)


@pytest.mark.parametrize("seed", range(4))
def test_it_allows_all_that_is_sound_and_not_much_else(seed: int) -> None:
    """On studies mutated at one place or two."""
    random = Random(seed)
    verdicts: dict[tuple[bool, bool], int] = {}
    for number in range(250):
        study = mutated(random, number)
        if study is not None:
            verdict = is_sound(study), allows(study)
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
            assert verdict != (True, False), study
    assert verdicts[True, True] > 10
    assert verdicts[False, False] > 2 * verdicts[False, True], verdicts


def mutated(random: Random, number: int) -> dict[str, Any] | None:
    """A study with parts left out, or mutated in its structure, or in its text if that is YAML still."""
    text = random.choice([FULL, SHORT, GOOD])
    if number % 3 == 0:
        study = content(text)
        for _ in range(random.randint(1, 4)):
            holder, key = random.choice([*_places(study)])
            del holder[key]
        return study
    if number % 3 == 1:
        study = content(text)
        for _ in range(random.choice([1, 1, 1, 2])):
            _mutate(study, random)
        return study
    try:
        return content(random.choice([_word, _token])(text.encode(), random).decode(errors="replace"))
    except StudyFileError:
        return None
