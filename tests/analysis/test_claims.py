"""Every claim's verdict follows from the outcomes: effects are planted, and found again with the right sign and size."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from support.worlds import WINNER, Cell, Value, evidence

from wdsearch.analysis.claims import CLAIMS, claims_of
from wdsearch.analysis.design import Schedule, design
from wdsearch.analysis.effects import effect, interval
from wdsearch.analysis.evidence import Evidence
from wdsearch.analysis.outcomes import Claim, Explanation, explanation_from
from wdsearch.analysis.verdicts import PValues, verdicts


def judged(key: str, found: Evidence) -> Claim:
    """A claim, judged beside the others."""
    return next(claim for claim in claims_of(found) if claim.key == key)


def step(off: float, on: float) -> Value:
    """One value without decay, another with it."""
    return lambda cell: on if cell.decay else off


def slope(off: float, on: float) -> Value:
    """One value without decay, another with λ*, and on in the same direction beyond."""
    return lambda cell: off * (on / off) ** (cell.decay / 0.1) ** 0.25 if cell.decay else off


def there_and_back(off: float, on: float) -> Value:
    """A change at λ* and near it alone: no trend."""
    return lambda cell: on if 0.03 < cell.decay < 0.3 else off


def valley(cell: Cell) -> float:
    """Validation loss with its least, 0.9, at λ*, and 1.2 at 0."""
    return 0.9 + 0.1 * math.log10(cell.decay / 0.1) ** 2 if cell.decay else 1.2


def sum_of_both(cell: Cell) -> float:
    return 1.0 - 0.1 * (cell.decay > 0) - 0.1 * (cell.dropout > 0)


def better_of_both(cell: Cell) -> float:
    return 1.0 - 0.1 * max(cell.decay > 0, cell.dropout > 0)


def worse_together(cell: Cell) -> float:
    return better_of_both(cell) + 0.2 * (cell.decay > 0 and cell.dropout > 0)


# claim, what is planted, noise, verdict, reason, effect
CASES: list[tuple[str, dict[str, Value], dict[str, float], str, str, float]] = [
    ("complexity", {"log_complexity": slope(2.0, 1.5)}, {}, "supported", "", math.expm1(-0.5)),
    ("complexity", {"log_complexity": slope(2.0, 2.4)}, {}, "contradicted", "opposite", math.expm1(0.4)),
    ("complexity", {"norm": step(10, 5)}, {"log_complexity": 1e-3}, "no_effect", "none", 0.0),  # a mere scaling
    ("complexity", {"log_complexity": there_and_back(2.0, 1.5)}, {}, "undetermined", "unclear", math.expm1(-0.5)),
    ("complexity", {"norm": step(10, 9.9)}, {"log_complexity": 1e-3}, "undetermined", "inert", 0.0),
    ("complexity", {"log_complexity": slope(2.0, 1.9)}, {"log_complexity": 0.5}, "undetermined", "unclear", -0.1),
    ("bell", {"nonnormality": slope(0.05, 0.03)}, {}, "supported", "", -0.4),
    ("bell", {"nonnormality": slope(0.05, 0.08)}, {}, "contradicted", "opposite", 0.6),
    ("bell", {}, {}, "no_effect", "none", 0.0),
    ("bell", {"nonnormality": slope(0.05, 0.03), "zeros": step(0.1, 0.3)}, {}, "undetermined", "mixed", -0.4),
    ("bell", {"zeros": step(0.1, 0.3)}, {}, "contradicted", "opposite", 0.0),
    ("bell", {"nonnormality": slope(0.05, 0.045)}, {"nonnormality": 0.5}, "undetermined", "unclear", -0.1),
    ("bell", {"norm": step(10, 10)}, {}, "undetermined", "inert", 0.0),
    ("zeros", {"zeros": lambda cell: 0.5 * (cell.l1 > 0) + 0.1 * cell.l1}, {}, "supported", "", 0.5),
    ("zeros", {}, {"zeros": 1e-3}, "no_effect", "none", 0.0),
    ("zeros", {"zeros": lambda cell: 0.2 - cell.l1**0.5 / 2}, {}, "contradicted", "opposite", -0.05),
    ("zeros", {"zeros": lambda cell: 0.02 * (cell.l1 > 0)}, {"zeros": 3.0}, "undetermined", "unclear", 0.02),
    ("collinearity", {"activation_correlation": slope(0.3, 0.2)}, {}, "supported", "", -0.1),
    ("collinearity", {"activation_correlation": slope(0.3, 0.4)}, {}, "contradicted", "opposite", 0.1),
    ("collinearity", {"condition": slope(50, 30)}, {}, "supported", "", -0.4),
    ("collinearity", {}, {"activation_correlation": 1e-3}, "no_effect", "none", 0.0),
    (
        "collinearity",
        {"activation_correlation": slope(0.3, 0.2), "condition": slope(50, 90)},
        {},
        "undetermined",
        "mixed",
        -0.1,
    ),
    ("collinearity", {}, {"activation_correlation": 0.5}, "undetermined", "unclear", 0.0),
    ("gap", {"gap": slope(0.5, 0.3)}, {}, "supported", "", -0.2),
    ("gap", {"gap": slope(0.5, 0.7)}, {}, "contradicted", "opposite", 0.2),
    ("gap", {"gap": slope(0.5, 0.3), "gap_accuracy": slope(0.1, 0.2)}, {}, "undetermined", "mixed", -0.2),
    ("gap", {}, {"gap": 1e-3}, "no_effect", "none", 0.0),
    ("gap", {}, {"gap": 0.5}, "undetermined", "unclear", 0.0),
    ("optimum", {"val_loss": valley}, {}, "supported", "", -0.3),
    ("optimum", {"val_loss": step(1.0, 1.3)}, {}, "contradicted", "opposite", 0.3),
    ("optimum", {"val_loss": step(1.0, 0.7)}, {"val_loss": 1e-3}, "no_effect", "plateau", -0.3),
    ("optimum", {}, {"val_loss": 1e-3}, "no_effect", "none", 0.0),
    ("optimum", {"val_loss": lambda cell: 1 / (1 + 10 * cell.decay)}, {}, "undetermined", "edge", -0.998),
    ("optimum", {"val_loss": valley}, {"val_loss": 0.2}, "undetermined", "unclear", -0.3),
    ("updates", {"update_spread": step(1.0, 0.5)}, {}, "supported", "", -0.5),
    ("updates", {"update_spread": step(1.0, 1.5)}, {}, "contradicted", "opposite", 0.5),
    ("updates", {"update_spread": step(1.0, 0.5), "timescale": step(0, 0.5)}, {}, "undetermined", "equilibrium", -0.5),
    ("updates", {}, {}, "no_effect", "none", 0.0),
    ("updates", {}, {"update_spread": 0.5}, "undetermined", "unclear", 0.0),
    ("gradients", {"gradient_norm_late": step(10, 5)}, {}, "supported", "", -0.5),
    ("gradients", {"gradient_norm_late": step(10, 20)}, {}, "contradicted", "opposite", 1.0),
    ("gradients", {}, {}, "no_effect", "none", 0.0),
    ("gradients", {}, {"gradient_norm_late": 0.3}, "undetermined", "unclear", 0.0),
    ("dropout", {"val_loss": sum_of_both}, {}, "supported", "", -0.1),
    ("dropout", {"val_loss": worse_together}, {}, "contradicted", "opposite", 0.2),
    ("dropout", {"val_loss": better_of_both}, {"val_loss": 1e-3}, "no_effect", "none", 0.0),
    ("dropout", {"val_loss": sum_of_both}, {"val_loss": 0.5}, "undetermined", "unclear", -0.1),
]


@pytest.mark.parametrize(("key", "changed", "noise", "verdict", "reason", "planted"), CASES)
def test_a_planted_effect_is_found_and_judged(
    key: str, changed: dict[str, Value], noise: dict[str, float], verdict: str, reason: str, planted: float
) -> None:
    claim = judged(key, evidence(changed, noise))
    assert (claim.verdict, claim.reason) == (verdict, reason), claim
    assert claim.low - 0.01 <= planted <= claim.high + 0.01, claim
    assert claim.low <= claim.effect <= claim.high


SUPPORTING: dict[str, dict[str, Value]] = {
    "complexity": {"log_complexity": slope(2.0, 1.5)},
    "bell": {"nonnormality": slope(0.05, 0.03)},
    "zeros": {"zeros": lambda cell: 0.5 * (cell.l1 > 0) + 0.1 * cell.l1},
    "collinearity": {"activation_correlation": slope(0.3, 0.2)},
    "gap": {"gap": slope(0.5, 0.3)},
    "optimum": {"val_loss": valley},
    "updates": {"update_spread": step(1.0, 0.5)},
    "gradients": {"gradient_norm_late": step(10, 5)},
    "dropout": {"val_loss": sum_of_both},
}


@pytest.mark.parametrize("key", CLAIMS)
def test_seeds_that_failed_are_counted_apart_and_never_averaged_in(key: str) -> None:
    """The others' mean is shown, with the number that failed; as many as fail here leave no verdict."""
    whole = judged(key, evidence(SUPPORTING[key]))
    claim = judged(key, evidence(SUPPORTING[key], fails=lambda cell: cell.seed < 4 and cell.decay + cell.l1 > 0))
    assert whole.verdict == "supported"
    assert claim.evidence["failed_on" if key == "gradients" else "diverged"] > 0
    if key in ("optimum", "dropout"):  # a point that failed on a seed is not chosen
        assert (claim.verdict, claim.reason) == ("undetermined", "diverged"), claim
    else:
        assert claim.effect == pytest.approx(whole.effect, rel=0.25)


def test_one_seed_that_failed_leaves_the_sign_of_the_others() -> None:
    """Nine fall, one diverged with decay: the exact sign test over all ten, not the mean of nine."""
    change = effect([-0.3, -0.31, -0.29, -0.3, -0.28, -0.33, -0.3, -0.27, -0.3, math.inf])
    assert change.mean == pytest.approx(-0.298, abs=1e-3)
    assert change.p_value(-1) == pytest.approx(11 / 1024)
    assert change.p_smaller(10.0) == 1.0


def test_at_high_rates_failures_speak_by_themselves() -> None:
    fast_off = judged("gradients", evidence({}, fails=lambda cell: cell.decay == 0 and cell.speed >= 9.99))
    assert (fast_off.verdict, fast_off.effect, fast_off.unit) == ("supported", -1.0, "runs")
    assert (fast_off.evidence["failed_off"], fast_off.evidence["failed_on"]) == (20, 0)
    fast_on = judged("gradients", evidence({}, fails=lambda cell: cell.decay > 0 and cell.speed >= 9.99))
    assert fast_on.verdict == "contradicted"
    every = judged("gradients", evidence({}, fails=lambda cell: cell.speed >= 9.99))
    assert (every.verdict, every.reason) == ("undetermined", "diverged")


def test_a_dead_network_has_failed_however_small_its_gradients() -> None:
    """Without decay half of the networks die at high rates, with gradients near 0: that is no tame training."""

    def dies(cell: Cell) -> float:
        return float(cell.decay == 0 and cell.speed >= 9.99)

    def gradients(cell: Cell) -> float:
        return 1e-6 if dies(cell) else 10.0

    claim = judged("gradients", evidence({"dead": dies, "gradient_norm_late": gradients}))
    assert (claim.verdict, claim.unit, claim.effect) == ("supported", "runs", -1.0)


def test_a_best_point_that_failed_on_one_seed_is_not_chosen() -> None:
    best = WINNER.strengths["weight_decay"]
    found = evidence({"val_loss": valley}, fails=lambda cell: cell.decay == best and cell.seed == 0)
    assert judged("optimum", found).evidence["best"] != pytest.approx(best)


@pytest.mark.parametrize("key", CLAIMS)
def test_few_seeds_decide_nothing(key: str) -> None:
    assert (judged(key, evidence(SUPPORTING[key], seeds=4)).reason) == "seeds" or key in ("optimum", "dropout")
    claim = judged(key, evidence(SUPPORTING[key], seeds=4))
    assert claim.verdict == "undetermined"
    if key in ("optimum", "dropout"):
        claim = judged(key, evidence(SUPPORTING[key], seeds=8))
        assert (claim.verdict, claim.reason) == ("undetermined", "halves")


def test_what_is_not_measured_is_not_judged() -> None:
    found = evidence({})
    bare = Evidence(tuple(replace(outcome, measures={}) for outcome in found.outcomes), found.axes)
    for key in ("complexity", "bell", "zeros", "collinearity", "updates"):
        claim = judged(key, bare)
        assert (claim.verdict, claim.reason) == ("undetermined", "not_measured"), key
        assert math.isnan(claim.effect)


def test_a_network_of_single_units_has_no_collinearity() -> None:
    """Its condition number is 1 and cannot fall."""
    names = ("activation_correlation", "weight_correlation")
    found = evidence({"condition": lambda cell: 1.0}, {"condition": 0.0})
    outcomes = tuple(
        replace(
            o, measures={name: 1.0 if name == "condition" else v for name, v in o.measures.items() if name not in names}
        )
        for o in found.outcomes
    )
    claim = judged("collinearity", Evidence(outcomes, found.axes))
    assert (claim.verdict, claim.reason) == ("undetermined", "not_measured")


def test_without_dropout_layers_the_claim_says_so() -> None:
    plan = design(WINNER, Schedule(640.0, 1.0), drops=False)
    assert "dropout" not in {arm for arm, _ in plan.cells}
    outcomes = tuple(outcome for outcome in evidence({}).outcomes if outcome.arm != "dropout")
    claim = judged("dropout", Evidence(outcomes, plan.axes))
    assert (claim.verdict, claim.reason) == ("undetermined", "no_dropout")


def test_what_was_chosen_on_other_seeds_shows_no_effect() -> None:
    """Judged by the seeds that chose them, the best of nine cells would beat the best of seven by the noise alone."""
    effects = []
    for start in range(30):
        random = np.random.default_rng(start)
        effects.append(judged("dropout", evidence({}, {"val_loss": 0.1}, random=random)).effect)
    assert abs(float(np.mean(effects))) < 3 * float(np.std(effects)) / math.sqrt(len(effects))


def test_a_world_without_effects_is_given_a_direction_in_one_of_twenty_explanations_at_most() -> None:
    """Of 30 worlds 1.5 are expected at most; 6 or more would come by chance in 1 of 300 tries at 5 %."""
    wrong = 0
    for start in range(30):
        found = claims_of(evidence({}, dict.fromkeys(SUPPORTING, 0.05), random=np.random.default_rng(start)))
        wrong += any(claim.verdict in ("supported", "contradicted") for claim in found)
    assert wrong < 6


def test_p_values_are_scipys() -> None:
    values = [0.3, -0.1, 0.4, 0.2, 0.5, -0.2]
    change = effect(values)
    assert change.p_value(1) == pytest.approx(scipy.stats.ttest_1samp(values, 0.0, alternative="greater").pvalue)
    assert change.p_value(-1) == pytest.approx(scipy.stats.ttest_1samp(values, 0.0, alternative="less").pvalue)
    below = scipy.stats.ttest_1samp(values, 0.8, alternative="less").pvalue
    assert change.p_smaller(0.8) == pytest.approx(below)
    low, high = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((np.mean(values), low, high))
    signs = [*values, math.inf]
    assert effect(signs).p_value(1) == pytest.approx(scipy.stats.binomtest(5, 7, alternative="greater").pvalue)


def test_holms_steps_are_over_all_claims() -> None:
    tests = {"a": PValues(0.001, 0.999), "b": PValues(0.012, 0.988), "c": PValues(0.02, 0.98), "d": PValues(0.5, 0.5)}
    # two-sided 0.002 ≤ 0.05/4; 0.024 > 0.05/3: there it ends
    assert verdicts(tests) == {"a": "supported", "b": "undetermined", "c": "undetermined", "d": "undetermined"}
    assert verdicts(tests | {"b": PValues(0.992, 0.008)})["b"] == "contradicted"


def test_an_explanation_comes_back_from_json_as_it_was() -> None:
    found = evidence({}, fails=lambda cell: cell.speed > 20)
    claims = (*claims_of(found), Claim("x", "undetermined", math.nan, math.nan, math.nan, "share", {}, {}, "seeds"))
    whole = Explanation("s", 3, 40, 10, "weight_decay", found.outcomes, claims)
    text = json.dumps(whole.as_dict(), allow_nan=False)
    again = explanation_from(json.loads(text))
    assert again.outcomes == whole.outcomes
    assert again.claims[:-1] == whole.claims[:-1]
    assert math.isnan(again.claims[-1].effect)
