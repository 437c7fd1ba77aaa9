"""Sweeps side by side: no alarm where only seeds differ, one where λ* really moved."""

import itertools
import json
import math
import random
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from support.fabricated import DIAGNOSTICS, explain, explanation
from typer.testing import CliRunner

from wdsearch.analysis.outcomes import Explanation, Outcome
from wdsearch.analysis.strength_range import NEIGHBOURS, SEEDS, Range, Trial, plausible
from wdsearch.analysis.trend import MOVED, STEADY, UNDETERMINED, trend
from wdsearch.cli.app import app
from wdsearch.errors import StudyNotFoundError
from wdsearch.report.texts import Texts
from wdsearch.report.write import write_report
from wdsearch.storage.attributes import BASELINE, CONFIG, EXPLANATION, FAMILY, FIRED, GOALS, METRIC, RATE_SUM, RESULT
from wdsearch.storage.home import Home
from wdsearch.storage.results import StudyResult, load_result, winner

SPACE = {
    "weight_decay": FloatDistribution(1e-3, 10.0, log=True),
    "lr": FloatDistribution(3e-4, 3e-2, log=True),
    "dropout": FloatDistribution(0.0, 0.6),
}
TRIALS = 64


@cache
def searched(best: float, noise: float, seed: int) -> tuple[FrozenTrial, ...]:
    """TPE on a valley whose best λ goes with the rate, seen through so much noise; most trials are pruned, as in real studies."""
    chance = random.Random(f"{best} {noise} {seed}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=TPESampler(seed=seed))
    early: list[float] = []
    for _ in range(TRIALS):
        trial = study.ask(fixed_distributions=dict(SPACE))
        decay, rate = (math.log10(trial.params[name]) for name in ("weight_decay", "lr"))
        off = decay - math.log10(best)
        loss = 0.9 + 0.05 * off**2 + 0.05 * (rate + 2.2 + 0.3 * off) ** 2 + 0.3 * (trial.params["dropout"] - 0.25) ** 2
        soon = loss + 0.1 + chance.gauss(0.0, 2 * noise)
        early.append(soon)
        metrics = {"val_loss": loss + chance.gauss(0.0, noise), "gap": 0.4 - 0.1 * decay, "train_loss": 0.3}
        kept = len(early) < 6 or soon <= sorted(early)[len(early) // 3]
        strengths = {name: trial.params[name] for name in ("weight_decay", "dropout")}
        result = {"end": "finished" if kept else "pruned", "epochs": 40, "metrics": metrics, "lr": trial.params["lr"]}
        trial.set_user_attr(RESULT, result | {"strengths": strengths, "model": {}, "diagnostics": DIAGNOSTICS})
        trial.report(soon, 5)
        if kept:
            study.tell(trial, metrics["val_loss"])
        else:
            study.tell(trial, state=TrialState.PRUNED)
    return tuple(study.get_trials(deepcopy=False))


def swept(
    home: Home,
    day: int,
    best: float = 0.1,
    noise: float = 0.01,
    trials: int = TRIALS,
    data: str = "a",
    rate_sum: float | None = 640.0,
) -> StudyResult:
    """A sweep of the family `night` as it lies in the storage."""
    name = f"night.202606{day:02}T0200Z"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(storage=home.open(), study_name=name)
    config = {"study": name, "space": {key: {} for key in SPACE}, "budget": {"trials": TRIALS, "epochs": 40}, "seed": 0}
    plain = searched(best, noise, 0)[0].user_attrs[RESULT] | {"strengths": {"weight_decay": 0.0, "dropout": 0.0}}
    known: dict[str, Any] = {GOALS: ["val_loss"], METRIC: "accuracy", CONFIG: config, BASELINE: plain}
    known |= {FAMILY: "night", FIRED: f"2026-06-{day:02}T02:00:00Z", "identity": {"data (digest)": data}}
    known |= {} if rate_sum is None else {RATE_SUM: rate_sum}
    for key, value in known.items():
        study.set_user_attr(key, value)
    study.add_trials(searched(best, noise, day)[:trials])
    return load_result(study, home)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def called(home: Home, *words: str) -> Any:
    return CliRunner().invoke(app, ["trend", "night", "--home", str(home.path), *words])


# -- the rule ------------------------------------------------------------------------------------------------------


def span(best: float, noise: float, seed: int) -> Range:
    complete = [trial for trial in searched(best, noise, seed) if trial.state == TrialState.COMPLETE]
    strength_range = plausible([Trial(t.params["weight_decay"], t.values[0], _place(t)) for t in complete])
    assert strength_range is not None
    return strength_range


def _place(trial: FrozenTrial) -> tuple[float, ...]:
    decay, rate = math.log10(trial.params["weight_decay"]), math.log10(trial.params["lr"])
    return (decay + 3) / 4, (rate - math.log10(3e-4)) / 2, trial.params["dropout"] / 0.6


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_seeds_alone_hardly_ever_raise_an_alarm_and_a_tenfold_move_does_as_far_as_noise_allows(noise: float) -> None:
    """Of the same valley searched with other seeds, all pairs; of another valley, each with each."""
    seeds = range(1, 9)
    same = [span(0.1, noise, seed) for seed in seeds]
    pairs = list(itertools.combinations(same, 2))
    alarms = sum(not one.meets(other) for one, other in pairs)
    assert alarms <= 0.05 * len(pairs), alarms
    moved = [span(1.0, noise, seed) for seed in seeds]
    seen = sum(not one.meets(other) for one in same for other in moved)
    assert seen >= {0.003: 0.9, 0.01: 0.7, 0.03: 0.3}[noise] * len(same) * len(moved), seen


def test_a_sweep_of_few_trials_has_no_range() -> None:
    trials = [Trial(0.1 * number, 1.0 + number, (0.1 * number,)) for number in range(1, 8)]
    assert plausible(trials) is None
    assert plausible([*trials, Trial(0.9, 9.0, (0.9,))]) is not None


def test_a_range_goes_up_to_the_next_that_was_tried_and_takes_in_off() -> None:
    losses = {0.0: 1.0, 0.01: 1.0, 0.02: 1.001, 0.05: 1.002, 0.1: 5.0, 0.2: 6.0, 0.5: 7.0, 1.0: 8.0}
    trials = [Trial(x, loss, (place / 8,)) for place, (x, loss) in enumerate(losses.items())]
    path = {
        x: {seed: loss + 0.001 * (seed % 2) * (place % 2) for seed in range(5)}
        for place, (x, loss) in enumerate(losses.items())
    }
    strength_range = plausible(trials, path)
    assert strength_range is not None
    assert (strength_range.low, strength_range.high, strength_range.source) == (0.0, 0.1, SEEDS)
    by_neighbours = plausible(trials)
    assert by_neighbours is not None
    assert by_neighbours.source == NEIGHBOURS
    assert plausible(trials, {x: {0: 1.0, 1: 1.0} for x in losses}).source == NEIGHBOURS, "two seeds measure nothing"  # type: ignore[union-attr]


def test_the_noise_is_that_of_a_difference() -> None:
    chance = random.Random(0)
    trials = [Trial(1.0 + 1e-6 * n, chance.gauss(1.0, 0.1), (chance.random(), chance.random())) for n in range(400)]
    strength_range = plausible(trials)
    assert strength_range is not None
    half_normal = 0.1 * math.sqrt(2.0 * (1.0 - 2.0 / math.pi))  # the better half varies less than all
    assert strength_range.noise == pytest.approx(half_normal, rel=0.25)
    path = {x: {seed: chance.gauss(1.0, 0.1) for seed in range(40)} for x in (0.1, 0.2, 0.3, 0.4, 0.5)}
    measured = plausible(trials, path)
    assert measured is not None
    assert measured.noise == pytest.approx(0.1 * math.sqrt(2.0), rel=0.15)


# -- sweeps in a storage -------------------------------------------------------------------------------------------


def test_sweeps_that_differ_by_seed_alone_are_steady(home: Home) -> None:
    for day in (1, 2, 3):
        swept(home, day)
    movement = trend("night", home)
    assert (movement.verdict, movement.key, movement.goal) == (STEADY, "weight_decay", "val_loss")
    done = called(home)
    assert done.exit_code == 0, done.output
    assert "λ* did not move by more than seeds do" in done.stdout
    assert "neighbouring trials of the sweep differ by" in done.stdout.replace("\n", " ")
    assert done.stdout.count("2026-06-0") >= 3


def test_a_sweep_with_another_best_strength_raises_an_alarm(home: Home) -> None:
    for day in (1, 2):
        swept(home, day, noise=0.003)
    last = swept(home, 3, best=3.0, noise=0.003, data="b")
    movement = trend("night", home)
    assert movement.verdict == MOVED
    done = called(home, "--json")
    assert done.exit_code == 3
    record = json.loads(done.stdout)
    assert record["verdict"] == "moved"
    assert [sweep["study"] for sweep in record["sweeps"]] == [f"night.2026060{day}T0200Z" for day in (1, 2, 3)]
    assert last.best is not None
    assert record["sweeps"][2]["strength"] == last.best.result.strengths["weight_decay"]
    assert record["sweeps"][2]["value"] == last.best.values[0]
    assert record["sweeps"][2]["range"]["low"] > record["sweeps"][1]["range"]["high"]
    text = called(home).stdout.replace("\n", " ")
    assert "λ* moved by more than seeds do" in text
    assert "The data are others than in the sweep before." in text
    swept(home, 4, best=3.0, noise=0.003, data="b")
    assert called(home).exit_code == 0, "it is record once, by the sweep that movement it"


def test_sweeps_are_compared_by_what_decay_does_over_a_training(home: Home) -> None:
    """Ten times the rows, and ten times the steps: a tenth of λ is the same timescale."""
    swept(home, 1, best=1.0, noise=0.003, rate_sum=640.0)
    swept(home, 2, best=0.1, noise=0.003, rate_sum=6400.0)
    movement = trend("night", home)
    assert movement.verdict == STEADY, movement
    best = movement.sweeps[-1]
    assert best.strength is not None
    assert best.lr is not None
    assert best.decay == pytest.approx(best.strength * best.lr * 6400.0)
    text = called(home).stdout.replace("\n", " ")
    assert "timescale" in text
    swept(home, 3, best=1.0, noise=0.003, rate_sum=6400.0)
    assert trend("night", home).verdict == MOVED, "the same λ as at first, and another timescale"


def test_a_sweep_without_timescales_is_compared_with_its_like_only(home: Home) -> None:
    """Those of version 0.1 did not record the sum of the schedule's factors."""
    for day in (1, 2):
        swept(home, day, rate_sum=None)
    assert trend("night", home).verdict == STEADY
    swept(home, 3)
    assert (trend("night", home).verdict, trend("night", home).reason) == (UNDETERMINED, "unit")
    assert "of an earlier version" in called(home).stdout.replace("\n", " ")


def test_what_cannot_be_said_is_said_to_be_so(home: Home) -> None:
    with pytest.raises(StudyNotFoundError, match="there are no sweeps of 'night'; there are sweeps of: nothing"):
        trend("night", home)
    assert called(home).exit_code == 2
    swept(home, 1)
    assert (trend("night", home).verdict, trend("night", home).reason) == (UNDETERMINED, "one")
    swept(home, 2, trials=30)
    assert trend("night", home).reason == "one", "an unfinished sweep is not compared"
    done = called(home)
    assert done.exit_code == 0
    assert "at least two finished sweeps are needed" in done.stdout.replace("\n", " ")
    assert "30/64" in done.stdout


def test_fresh_seeds_of_an_explanation_are_used(home: Home) -> None:
    for day in (1, 2):
        done = swept(home, day, noise=0.003)
        grid = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
        chance = random.Random(day)
        outcomes = tuple(
            Outcome("weight_decay", seed, 0.01, {"weight_decay": x}, {}, "finished",
                    {"val_loss": 0.9 + 0.05 * (math.log10(x or 1e-4) + 1) ** 2 + chance.gauss(0.0, 0.004)}, {})
            for x in grid for seed in range(5)
        )  # fmt: skip
        explained = Explanation(done.study, winner(done).number, 40, 5, "weight_decay", outcomes, ())
        done.optuna_study.set_user_attr(EXPLANATION, explained.as_dict())
    movement = trend("night", home)
    assert [sweep.range.source for sweep in movement.sweeps if sweep.range] == [SEEDS, SEEDS]
    assert all(sweep.range and 0.002 < sweep.range.noise < 0.012 for sweep in movement.sweeps)
    assert "what fresh seeds changed between two trainings" in called(home).stdout.replace("\n", " ")
    explain(load_result(movement.sweeps[1].study, home), replace(explanation(movement.sweeps[1].study), decay="l2"))
    assert trend("night", home).sweeps[1].range.source == NEIGHBOURS, "of another key"  # type: ignore[union-attr]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_report_of_a_sweep_shows_the_others(home: Home, language: str) -> None:
    first = swept(home, 1)
    assert 'id="sweeps"' not in write_report(first, Texts(language)).page.read_text(), "it is the only one"
    last = swept(home, 2, best=3.0)
    written = write_report(last, Texts(language))
    page = written.page.read_text()
    assert '<section id="sweeps">' in page
    assert Texts(language)("section.sweeps") in page
    assert 'id="figure-sweeps"' in page
    assert "2026-06-02 02:00" in page
    assert any(path.name.startswith("sweeps") for path in written.pictures)
