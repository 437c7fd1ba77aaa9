"""Broken study files by the thousand: `load_study` raises nothing but StudyFileError, and soon."""

import copy
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest
import yaml

from wdsearch.search.ask import build_pruner
from wdsearch.study.file import LARGEST_BYTES, MOST_VALUES, StudyFileError, StudySource
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.study.space import baseline, distributions

LIMIT_S = 10.0
"""Of the processor, for one file; a sound one takes some milliseconds."""

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]

FULL = """# every section, every form of a dimension, anchors
study: full
data: &data {name: digits, init_args: {batch_size: 50}, split_seed: 3}
model:
  name: mlp
  init_args: {hidden: [16, 8], activation: "tanh"}
optimizer: {name: adamw, lr: 1e-3, schedule: cosine, warmup: 0.1, betas: [0.9, 0.99], eps: 1e-8, decay: all}
space:
  lr: {low: 3e-4, high: 3e-2, log: true}
  weight_decay: {timescale: [0.01, 10], off: true}
  l2: &l2 {low: 1e-6, high: 0.01, log: true}
  l1: {<<: *l2, high: 0.1, off: true}
  dropout: {low: 0.0, high: 0.6, step: 0.2}
  early_stopping: {low: 2, high: 8, off: true}
  label_smoothing: {choices: [0.0, 0.1]}
  gradient_clip: 1.0
  model.hidden:
    choices:
      - [8]
      - [16, 8]
objective: {minimize: [val_loss, gap], constraints: {gap: {max: 1.0, min: -1}}}
budget: {trials: 4, epochs: 2}
search: {batch: 4, sampler: {name: tpe, n_startup_trials: 3}, pruner: none}
trainer: {accelerator: cpu, precision: 64, threads: 1, population: auto}
metric: accuracy
task: classification
seed: 7
"""
SHORT = """study: short
data: diabetes
model: mlp
optimizer: {name: sgd, momentum: 0.5, nesterov: true}
space: {input_noise: {low: 0, high: 1}, model.dropout: {low: 0.1, high: 0.4}, lr: 0.1}
budget: {trials: 1, epochs: 1}
search: {sampler: qmc, pruner: {name: hyperband, reduction_factor: 3}}
"""
TOKENS = [
    *re.findall(
        r"\S+",
        """~ null .nan .inf -.inf true off yes [] {} [1] {a: 1} '' "1" x -1 0 2 -0.0 1e-6 1e400 1e308 5e-324 0x0 0o7 010 1_0
        !!int !!float !!binary !!timestamp !!set !!omap !!python/object:os.system !mine *l2 *none &l2 & * ? : - , # | > % @
        ` <<: --- ... %YAML 2001-01-01 12:30 "\\ud800" "\\e[2J" "\\x00" é 😀 ∞""",
    ),
    *("\t", "\x00", "\x07", "\x85", "\ufeff", "\u2028", "\u202e", "\ud7ff", "\n", "\r"),
]
NASTY: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**400,
        16**6000,
        0.0,
        -0.0,
        1e-320,
        1e300,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "off", "true", "1", "1e-3", "\ud800", "\x1b[2J", "a" * 10_000, "name", "val_loss", "mlp", "tpe", "none"),
    *([], {}, [[]], [None], [1, 2], [2, 1], [1, 2, 3], [0.0, 1e300], ["a", "a"], {"name": "mlp"}, {"": 1}, {"low": 1}),
    *({"low": 2, "high": 1}, {"low": 1e-300, "high": 1e300, "log": True, "off": True}, {"choices": [[]]}),
    *(
        {"low": 1, "high": 10**300, "step": 10**290},
        {"low": 1, "high": 2**70, "off": True},
        {"timescale": [1e-300, 1e300]},
    ),
    *({"low": 0.1, "high": 1e308, "step": 5e-324}, {"class_path": "no.where"}, {"class_path": ".."}, [[[[[]]]]] * 50),
]


@contextmanager
def _limit(what: object) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not read in {LIMIT_S:g} s of the processor: {str(what)[:2000]}")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def loaded(source: Path | Mapping[str, Any], *overrides: str) -> StudyConfig | None:
    """The study if it is sound; then what a search begins with can be made of it as well."""
    given = source.read_bytes() if isinstance(source, Path) else source
    faulty = None
    try:
        with _limit(given):
            config = load_study(source, overrides)
            distributions(config), baseline(config), build_pruner(config), config.dump(defaults=True)
            return config
    except StudyFileError as error:
        faulty = error
    except Exception as error:
        pytest.fail(f"{type(error).__name__}: {error}\n{given!r}"[:3000])
    assert len(str(faulty).splitlines()) == len(faulty.faults) > 0, given
    assert str(faulty).replace("\n", "").isprintable(), given
    assert "Input should" not in str(faulty), f"pydantic's words: {faulty}"
    return None


# -- text ----------------------------------------------------------------------------------------------------------


def _place(text: bytes, random: Random) -> slice:
    start = random.randrange(len(text) + 1)
    return slice(start, start + random.choice([1, 1, 1, 2, 5, 30]))


def _cut(text: bytes, random: Random) -> bytes:
    place = _place(text, random)
    return text[: place.start] + text[place.stop :]


def _double(text: bytes, random: Random) -> bytes:
    place = _place(text, random)
    return text[: place.stop] + text[place.start :]


def _swap(text: bytes, random: Random) -> bytes:
    lines = text.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _byte(text: bytes, random: Random) -> bytes:
    place = _place(text, random).start
    return text[:place] + bytes([random.randrange(256)]) + text[place + 1 :]


def _token(text: bytes, random: Random) -> bytes:
    place = _place(text, random)
    token = random.choice(TOKENS).encode("utf-8", "surrogatepass")
    return text[: place.start] + token + text[place.start if random.random() < 0.5 else place.stop :]


def _word(text: bytes, random: Random) -> bytes:
    words = text.split(b" ")
    words[random.randrange(len(words))] = random.choice([*(t.encode("utf-8", "surrogatepass") for t in TOKENS), *words])
    return b" ".join(words)


def _digits(text: bytes, random: Random) -> bytes:
    place = _place(text, random).start
    return text[:place] + random.choice([b"9" * 400, b"9" * 6000, b"1e-9999", b"0x" + b"f" * 6000]) + text[place:]


def _nest(text: bytes, random: Random) -> bytes:
    place, depth = _place(text, random).start, random.choice([3, 30, 3000])
    return text[:place] + random.choice([b"[", b"{a: ", b"- ", b"? ", b"[[],"]) * depth + text[place:]


def _tab(text: bytes, random: Random) -> bytes:
    return text.replace(b"  ", b"\t", random.randrange(1, 9)) if random.random() < 0.5 else text.replace(b" ", b"\t", 3)


def _end(text: bytes, random: Random) -> bytes:
    return text[: _place(text, random).start]


MUTATIONS: list[Callable[[bytes, Random], bytes]] = [
    *(_cut, _double, _swap, _byte, _token, _word, _digits, _nest, _tab, _end),
    *(_cut, _swap, _token, _word, _word),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_text_with_anything_wrong_in_it_gives_faults_and_nothing_else(tmp_path: Path, seed: int) -> None:
    path, random, sound = tmp_path / "a.yaml", Random(seed), 0
    for _ in range(280):
        text = random.choice([FULL, FULL, SHORT]).encode()
        for _ in range(random.randint(1, 3)):
            text = random.choice(MUTATIONS)(text, random)
        path.write_bytes(text)
        sound += loaded(path) is not None
    assert 3 < sound < 200, "mutations that break everything, or nothing, test little"


# -- structure -----------------------------------------------------------------------------------------------------


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a study with each of its keys."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def _mutate(study: dict[str, Any], random: Random) -> None:
    """Replace, rename, remove, swap, wrap or add at one place of a study."""
    places = [*_places(study)]
    if not places:
        return
    (holder, key), (other, other_key) = random.choice(places), random.choice(places)
    change = random.choice(["replace", "replace", "replace", "rename", "remove", "swap", "wrap", "add"])
    if change == "replace":
        holder[key] = copy.deepcopy(random.choice(NASTY))
    elif change == "remove":
        del holder[key]
    elif change == "swap":
        holder[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(holder[key])
    elif change == "wrap":
        holder[key] = random.choice([[holder[key]], {"name": holder[key]}, {"value": holder[key]}, str(holder[key])])
    elif isinstance(holder, dict):
        name = random.choice(
            ["off", "low", "timescale", "l1", "model.hidden", "model.", "", "\x1b[31m", "é", f"{key}s"]
        )
        holder[name] = holder.pop(key) if change == "rename" else copy.deepcopy(random.choice(NASTY))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_structure_with_anything_wrong_in_it_gives_faults_and_nothing_else(tmp_path: Path, seed: int) -> None:
    random, sound, path = Random(seed), 0, tmp_path / "a.yaml"
    for number in range(140):
        study = StudySource.from_text(random.choice([FULL, FULL, SHORT]), "").content
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            _mutate(study, random)
        if number % 2:
            sound += loaded(study) is not None
        else:
            with suppress(UnicodeEncodeError, ValueError):  # what no YAML can hold
                path.write_text(yaml.safe_dump(study, allow_unicode=True, width=10**6))
                sound += loaded(path) is not None
    assert 5 < sound < 100, "mutations that break everything, or nothing, test little"


@pytest.mark.parametrize("seed", range(3))
def test_an_override_with_anything_wrong_in_it_gives_faults_and_nothing_else(seed: int) -> None:
    random, study = Random(seed), StudySource.from_text(SHORT, "").content
    for _ in range(60):
        text = random.choice(["budget.trials=3", "space.model.hidden={choices: [[8], [4]]}", "search.sampler=gp"])
        for _ in range(random.randint(1, 3)):
            text = random.choice([_cut, _double, _word, _token, _digits])(text.encode(), random).decode(
                errors="replace"
            )
        loaded(study, text)


# -- known bombs -----------------------------------------------------------------------------------------------------


def _rows(row: str) -> str:
    return "a0: &a0 {x: 1, y: 2}\n" + "".join(
        row.format(n=n, all=", ".join([f"*a{n - 1}"] * 9)) + "\n" for n in range(1, 12)
    )


BOMBS = {
    "aliases of aliases": (_rows("a{n}: &a{n} [{all}]"), "this is too large for a study file"),
    "merges of merges": (_rows("a{n}: &a{n} {{<<: [{all}]}}"), "a11 is not a known key"),
    "a merge of itself": ("a: &a {<<: *a, x: 1}", "a is not a known key"),
    "a chain of merges": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, x{n}: 1}}\n" for n in range(1, 1500)),
        "this is too large for a study file",
    ),
    "a merge of a number": ("a: {<<: 1}", "`<<` takes a mapping, or a list of mappings"),
    "a list without end": ("a: [" + "1, " * 20_000 + "1]", "this is too large for a study file"),
    "keys without end": ("".join(f"key{n}: {n}\n" for n in range(MOST_VALUES - 10)), "key4 is not a known key"),
    "a large file": ("# " + "x" * LARGEST_BYTES, "this is too large for a study file (200 kB)"),
    "deep lists": ("a: " + "[" * 50_000, "it is nested too deeply"),
    "deep blocks": ("- " * 50_000 + "a", "it is nested too deeply"),
    "deep within reason": ("a: " + "[" * 100 + "]" * 100, "this is too large for a study file"),
    "a number of hexadecimal digits": ("seed: 0x" + "f" * 9000, "is no int"),
    "a long word": ("? " + "a" * 100_000 + "\n: 1", "a.yaml:1: " + "a" * 57 + "... is not a known key"),
    "a key that steers the terminal": ('"\\e[2Jx": 1', "\\x1b[2Jx is not a known key"),
    "half a character": ('study: "\\ud800"', "holds half a character"),
    "a tab": (
        "space:\n\tlr: 1",
        "a.yaml:2: this is not YAML: found character '\\t' that cannot start any token; indent",
    ),
    "a control character": ("study: a\nseed: \x07", "a.yaml:2: this is not YAML: unacceptable character #x0007"),
    "bytes": ("seed: !!binary aGVsbG8=", "a.yaml:1: 'aGVsbG8=' is a binary; allowed are text, numbers, true and false"),
    "a tag of Python's": ("seed: !!python/object/apply:os.getcwd []", "data is missing"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_does_not_go_off(tmp_path: Path, bomb: str) -> None:
    text, fault = BOMBS[bomb]
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert loaded(path) is None
    with pytest.raises(StudyFileError) as error:
        load_study(path)
    assert fault in str(error.value)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("study: é".encode("latin-1"))
    with pytest.raises(StudyFileError, match="this is not UTF-8 text"):
        load_study(path)
    with pytest.raises(StudyFileError, match="it cannot be read: Is a directory"):
        load_study(tmp_path)
    with pytest.raises(StudyFileError, match="too large"), _limit("/dev/zero"):
        load_study("/dev/zero")
    cycle: dict[str, Any] = {}
    cycle["study"] = cycle
    with pytest.raises(StudyFileError, match="it contains itself"):
        load_study(cycle)
