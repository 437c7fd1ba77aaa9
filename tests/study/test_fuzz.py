"""Broken study files by the thousand: `load_study` raises nothing but StudyFileError, and soon."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest
import yaml
from support.mutations import FULL, MUTATIONS, SHORT, _cut, _digits, _double, _mutate, _token, _word

from wdsearch.search.ask import build_pruner
from wdsearch.study.file import LARGEST_BYTES, MOST_VALUES, StudyFileError, StudySource
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.study.space import baseline, distributions

LIMIT_S = 10.0
"""Of the processor, for one file; a sound one takes some milliseconds."""

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]


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
