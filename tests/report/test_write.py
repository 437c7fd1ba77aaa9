"""The report: what it says and shows of studies of every kind, and that it gets to the run in MLflow."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution
from support import fabricated
from support.drawings import traces
from support.fabricated import SPACE, TrialState, fabricate

from wdsearch.analysis.advice import Flag
from wdsearch.analysis.importance import importances
from wdsearch.analysis.outcomes import Claim, Curve, explanation_of
from wdsearch.report import to_image as pictures
from wdsearch.report.claim_charts import claim_chart
from wdsearch.report.importance_charts import interaction_chart
from wdsearch.report.optuna_page import write_optuna_page
from wdsearch.report.sentences import answer, comparison, effect, flag_text
from wdsearch.report.study_charts import chosen_strength, gap_chart, path_chart
from wdsearch.report.texts import Texts
from wdsearch.report.write import write_report
from wdsearch.storage.home import Home
from wdsearch.storage.results import StudyResult
from wdsearch.tracking.delivery import deliver
from wdsearch.tracking.mlflow_tracker import MlflowTracker
from wdsearch.tracking.report import report

LARGEST = 6_000_000
SECTIONS = ["answer", "comparison", "gap", "path", "importance", "claims", "flags", "reproduce"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def words_of(page: Path) -> str:
    """Text of a page, without its scripts and tags."""
    text = re.sub(r"<(script|style|pre).*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_a_report_is_one_small_file_that_asks_the_network_for_nothing(home: Home) -> None:
    written = write_report(fabricate(home, trials=150), Texts())
    page = written.page.read_text(encoding="utf-8")
    assert len(page.encode()) < LARGEST
    assert page.count("plotly.js v") == 1, "the library once"
    assert not re.search(r'<(script|link|img|iframe)[^>]*(src|href)=["\']?(https?:)?//', page)
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert 'name="viewport"' in page
    assert {path.name for path in written.pictures} == {"gap.png", "path.png", "importance.png", "interaction.png"}
    assert all(path.stat().st_size > 5000 for path in written.pictures)


def test_the_answer_is_three_sentences_that_name_winner_baseline_and_trust(home: Home) -> None:
    result = fabricate(home)
    assert result.best is not None
    first, second, third = answer(result, None, Texts())
    best = result.best.result
    assert first.startswith(f"The best of 40 trials is trial {result.best.number}, with weight_decay = ")
    assert f"validation loss **{result.best.values[0]:.4g}** at a gap of **{best.metrics['gap']:.4g}**" in first
    assert second.startswith("Unregularized, at lr = 0.001, the network reaches validation loss 1.35 at a gap of")
    assert "`wdsearch explain fabricated`" in third
    told = answer(result, fabricated.explanation(), Texts())[2]
    assert "the largest λ as good as the best (weight_decay = 0.1) is **λ.1se = 1**" in told
    assert "of 3 textbook claims 2 are supported here, 0 contradicted, 0 without effect, 1 undetermined" in told


def test_the_best_unregularized_trial_stands_beside_the_baseline(home: Home) -> None:
    """Two of the trials have all strengths off: the better one is named, with its rate; without any that is said."""

    def off(number: int, result: dict[str, Any]) -> dict[str, Any]:
        if number in (3, 6):
            result["strengths"] = dict.fromkeys(result["strengths"], 0.0)
            result["metrics"]["val_loss"], result["lr"] = 2.0 + number, number * 1e-3
        return result

    second = answer(fabricate(home, change=off), None, Texts())[1]
    assert second.endswith(
        "At a rate of its own, lr = 0.003, the best unregularized trial (3) reaches validation loss 5."
    )
    assert "may be the rate's" in answer(fabricate(home, name="other"), None, Texts())[1]


def test_the_comparison_has_settings_metrics_and_their_difference(home: Home) -> None:
    result = fabricate(home)
    assert result.best is not None
    assert result.baseline is not None
    rows = {key: cells for _, key, *cells in comparison(result, Texts())}
    assert rows["weight_decay"][1:] == ["off", ""]
    best, baseline = result.best.result.metrics["gap"], result.baseline.metrics["gap"]
    assert rows["gap"] == [f"{best:.4g}", f"{baseline:.4g}", f"{best - baseline:+.3g}".replace("-", "−")]
    assert next(iter(rows)) == "lr"


def test_lambda_1se_is_marked_where_the_gap_and_the_path_are_shown(home: Home) -> None:
    result, explained = fabricate(home), fabricated.explanation()
    for figure in (gap_chart(result, Texts(), explanation=explained), path_chart(result, explained, Texts())):
        assert figure is not None
        (mark,) = figure.marks
        assert (mark.value, mark.name) == (1.0, "λ.1se = 1")
    path = path_chart(result, explained, Texts())
    assert path is not None
    validation = next(series for series in path.panels[0].series if series.name == "validation loss")
    assert validation.x == fabricated.GRID
    assert validation.y == pytest.approx((1.26, 1.06, 0.84, 0.864))
    # standard error of 1.3, 1.2, 1.3, 1.2, 1.3 over √5
    assert validation.high[0] - validation.y[0] == pytest.approx(math.sqrt(0.012 / 4 / 5))
    grid = interaction_chart(result, explained, Texts())
    assert grid is not None
    assert grid.panels[0].heat is not None
    rows = grid.panels[0].heat.values
    assert [value for row in rows for value in row] == pytest.approx([1.0, 0.9, 1.3, 1.2])


def test_an_explanation_brings_a_card_for_each_claim_with_its_verdict(home: Home) -> None:
    result = fabricate(home)
    without = words_of(write_report(result, Texts()).page)
    assert "wdsearch explain fabricated ; then wdsearch report fabricated again" in without
    fabricated.explain(result, fabricated.explanation())
    written = write_report(result, Texts())
    page, text = written.page.read_text(encoding="utf-8"), words_of(written.page)
    assert re.findall(r'<span class="verdict (\w+)">', page) == ["supported", "supported", "undetermined"]
    assert "Effect: −0.11 in loss (95 %: −0.14 to −0.09)" in text
    assert "Effect: −43 % (95 %: −46 to −40)" in text
    assert "The effect could not be measured." in text
    assert "The quantity was not measured for this network." in text
    assert {"claim-gap.png", "claim-complexity.png"} <= {path.name for path in written.pictures}


def test_what_was_found_around_an_earlier_winner_is_not_said_of_the_new_one(home: Home) -> None:
    result = fabricate(home)
    explanation = fabricated.explanation()
    fabricated.explain(result, explanation)
    assert explanation_of(result).trial == result.best.number
    fabricated.explain(replace(result, best=result.trials[0]), explanation)
    assert explanation_of(result) is None
    text = words_of(write_report(result, Texts()).page)
    assert f"trained on fresh seeds is trial {result.trials[0].number}, the best one until then" in text
    assert "Effect:" not in text
    assert "Trained again on" not in text


def test_chinese_says_the_same_in_chinese(home: Home) -> None:
    result = fabricate(home)
    fabricated.explain(result, fabricated.explanation())
    written = write_report(result, Texts("zh"))
    assert written.page.name == "report.zh.html"
    text = words_of(written.page)
    for part in ("结论", "权重衰减", "泛化差距", "基线", "剪枝", "验证损失", "λ.1se = 1", "此处得到支持"):
        assert part in text
    for english in ("validation loss", "supported here", "The best of"):
        assert english not in text


def test_without_a_chinese_font_the_pictures_are_english_and_that_is_said(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "CHINESE", ("no such font",))
    written = write_report(fabricate(home, trials=150), Texts("zh"))
    assert written.notes == ("未安装含汉字的字体，因此 PNG 文件为英文，网页不受影响",)
    assert {path.name for path in written.pictures} == {"gap.png", "path.png", "importance.png", "interaction.png"}


# -- studies of every kind -----------------------------------------------------------------------------------------


def nan_here_and_there(number: int, result: dict[str, Any]) -> dict[str, Any]:
    """As a diverged trial lies in the storage, and worse."""
    if number % 4 == 1:
        result["metrics"] = {}
    if number % 4 == 2:
        result["metrics"] |= {"gap": math.nan, "val_loss": math.inf}
    if number % 5 == 0:
        result["metrics"] |= {"val_loss": 1e12, "gap": -1e12}
        result["diagnostics"] = {}
    return result


def with_infinity(number: int, result: dict[str, Any]) -> dict[str, Any]:
    result["strengths"] |= {"gradient_clip": math.inf if number % 2 else 1.0 + number}
    return result


def own_module(number: int, result: dict[str, Any]) -> dict[str, Any]:
    """Metrics that a user-defined LightningModule logs under names of its own, with arguments that are no strengths."""
    model = {"depth": number % 3, "kind": "a" if number % 2 else "b", "wd": 0.1}
    return result | {"metrics": {"my/score": 0.5 + number / 100}, "strengths": {}, "model": model, "diagnostics": {}}


GROUPS = {
    "weight_decay:head": FloatDistribution(1e-3, 1.0, log=True),
    "weight_decay:body": FloatDistribution(1e-3, 1.0, log=True),
}
KINDS: dict[str, dict[str, Any]] = {
    "none": {"trials": 0},
    "one": {"trials": 1},
    "two": {"trials": 2, "states": lambda number: TrialState.COMPLETE},
    "all pruned": {"states": lambda number: TrialState.PRUNED},
    "all failed": {"states": lambda number: TrialState.FAIL},
    "dirty": {"change": nan_here_and_there},
    "equal": {"change": lambda number, result: result | {"metrics": {"val_loss": 1.0, "gap": 0.0, "train_loss": 1.0}}},
    "no baseline metrics": {"baseline": {}},
    "pareto": {"goals": ("val_loss", "gap"), "states": lambda number: TrialState.COMPLETE},
    "own module": {"goals": ("my/score",), "metric": "", "change": own_module},
    "groups": {"space": GROUPS | {"lr": SPACE["lr"]}},
    "l2": {"space": {"l2": SPACE["weight_decay"], "dropout": SPACE["dropout"]}},
    "infinite": {"change": with_infinity},
    "arguments": {"space": SPACE | {"model.norm": CategoricalDistribution(["batch", None, "<b>"])}},
    "no regularizer": {"space": {"lr": SPACE["lr"]}, "change": lambda number, r: r | {"strengths": {}}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_study_has_a_report(kind: str, home: Home) -> None:
    result, language = fabricate(home, **KINDS[kind]), "zh" if len(kind) % 2 else "en"
    written = write_report(result, Texts(language))
    page, text = written.page.read_text(encoding="utf-8"), words_of(written.page)
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert not re.search(r"\bnan\b|\bNaN\b|\binf\b", text), re.findall(r".{30}\b(?:nan|NaN|inf)\b.{30}", text)
    assert "{" not in text
    assert len(written.pictures) == page.count('class="plotly-graph-div"')
    write_optuna_page(result, Texts(language))


def test_the_keys_of_every_kind_are_on_the_axes(home: Home) -> None:
    cases = (("groups", "weight_decay:head"), ("l2", "l2"), ("pareto", "weight_decay"))
    for number, (kind, key) in enumerate(cases):
        figure = gap_chart(fabricate(home, name=f"study{number}", **KINDS[kind]), Texts())
        assert figure is not None
        assert figure.x.title.startswith(key)
        assert len(figure.panels) == 2


def test_a_users_text_cannot_become_html(home: Home) -> None:
    page = write_report(fabricate(home, **KINDS["arguments"]), Texts()).page.read_text(encoding="utf-8")
    body = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "<b>" not in body


def test_a_pareto_front_is_named_and_its_goals_compared(home: Home) -> None:
    result = fabricate(home, **KINDS["pareto"])
    sentences = answer(result, None, Texts())
    assert f"trials {', '.join(map(str, result.pareto))} are the Pareto front" in sentences[-1]
    page = write_optuna_page(result, Texts())
    assert page is not None
    assert 'id="optuna-pareto"' in page.read_text(encoding="utf-8")


def test_claims_of_any_names_and_lengths_are_drawn() -> None:
    explanation = fabricated.explanation()
    one = Curve((0.1,), (math.nan,), (math.nan,), (math.nan,))
    names = ["zeros_l1", "zeros_decay", "val_loss_l1", "gradient_norm_max_off", "diverged_on", "val_loss_0.25", "new"]
    claim = Claim("dropout", "supported", 0.0, 0.0, 0.0, "loss", {}, dict.fromkeys(names, one))
    figure = claim_chart(claim, explanation, Texts())
    assert figure is not None
    assert [len(panel.series) for panel in figure.panels] == [2, 2, 1, 1, 1]
    assert claim_chart(replace(claim, curves={}), explanation, Texts()) is None


def test_effects_are_told_in_their_units() -> None:
    claim = Claim("zeros", "supported", 0.62, 0.55, 0.7, "weights", {}, {})
    assert effect(claim, Texts()) == "Effect: +62 points of all weights (95 %: +55 to +70)"


def test_flags_are_told_with_their_numbers() -> None:
    text = flag_text(Flag("inert", {"shrinkage": 0.0213, "timescale": 47.0}), Texts())
    assert "shrinks the weights by 2.13 % in all (timescale 47 training lengths)" in text
    edge = Flag("edge", {"key": "weight_decay", "value": 9.9, "low": 0.1, "high": 10.0})
    assert flag_text(edge, Texts()).startswith("The best weight_decay = 9.9 lies at the edge of its range 0.1 to 10")
    assert flag_text(Flag("diverging", {"count": 3.0, "trials": 12.0}), Texts()).startswith("3 of 12 trials diverged")
    for key, values in (("saturated", {"timescale_epochs": 0.5}), ("norm_layers", {"share": 0.75})):
        assert flag_text(Flag(key, values), Texts("zh"))  # type: ignore[arg-type]


def test_importances_find_the_key_that_decides(home: Home) -> None:
    def decided(number: int, result: dict[str, Any]) -> dict[str, Any]:
        result["metrics"]["val_loss"] = result["strengths"]["dropout"]
        return result

    every = {"states": lambda number: TrialState.COMPLETE, "change": decided}
    found = importances(fabricate(home, trials=100, **every))  # type: ignore[arg-type]
    assert max(found, key=lambda key: found[key]) == "dropout"
    assert sum(found.values()) == pytest.approx(1.0)
    assert importances(fabricate(home, trials=49, **every)) == {}, "mostly noise"  # type: ignore[arg-type]


def test_optunas_plots_are_on_one_page_that_stays_small(home: Home) -> None:
    result = fabricate(home, trials=200, states=lambda number: TrialState.COMPLETE)
    path = write_optuna_page(result, Texts())
    assert path is not None
    page = path.read_text(encoding="utf-8")
    assert re.findall(r'id="optuna-(\w+)"', page) == ["history", "importances", "slice", "contour"]
    assert "60 of 200 complete trials" in page
    assert len(page.encode()) < LARGEST


# -- in MLflow -----------------------------------------------------------------------------------------------------


def ended(home: Home, study: str) -> tuple[MlflowClient, Any]:
    """A study whose run has ended in the local MLflow."""
    tracker = MlflowTracker(home.path, study)
    tracker.start_study({}, {}, {})
    tracker.end_study({"val_loss": 0.5}, {})
    assert tracker.finish().undelivered == 0
    client = MlflowClient(f"sqlite:///{home.path / 'mlflow.db'}")
    return client, run_of(client, study)


def run_of(client: MlflowClient, study: str) -> Any:
    experiment = client.get_experiment_by_name(study).experiment_id
    (run,) = client.search_runs([experiment], "tags.`wdsearch.kind` = 'study'")
    return run


def test_a_report_gets_to_the_ended_run_and_leaves_its_state_alone(home: Home, tmp_path: Path) -> None:
    fabricate(home, trials=6, stored=True)
    client, before = ended(home, "fabricated")
    written, delivery = report("fabricated", home, output=tmp_path / "copies" / "mine.html")
    assert (tmp_path / "copies" / "mine.html").read_bytes() == written.page.read_bytes()
    assert delivery is not None
    assert delivery.undelivered == 0
    after = run_of(client, "fabricated")
    assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)
    assert after.data.tags == before.data.tags
    there = {file.path for file in client.list_artifacts(after.info.run_id, "report")}
    assert there == {f"report/{path.name}" for path in (written.page, *written.pictures)}


def test_a_study_that_has_no_run_gets_none_by_its_report(home: Home) -> None:
    fabricate(home, trials=6, stored=True)
    assert report("fabricated", home)[1] is None
    ended(home, "fabricated")
    (home.path / "mlflow.db").unlink()
    assert report("fabricated", home)[1] is None
    assert not (home.path / "mlflow.db").exists()


def test_a_report_goes_where_the_study_went_whatever_the_environment_says(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricate(home, trials=6, stored=True)
    client, run = ended(home, "fabricated")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert report("fabricated", home)[1].undelivered == 0  # type: ignore[union-attr]
    assert client.list_artifacts(run.info.run_id, "report")


def test_a_report_waits_in_the_spool_while_mlflow_is_out_of_reach(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    fabricate(home, trials=6, stored=True)
    client, run = ended(home, "fabricated")
    idle = [sys.executable, "-c", ""]
    monkeypatch.setattr(MlflowTracker, "_deliver_beside", lambda self: subprocess.Popen(idle))
    delivery = report("fabricated", home)[1]
    assert delivery is not None
    assert delivery.undelivered > 0
    assert deliver(home.path / "spool" / "fabricated.db") == 0
    assert client.list_artifacts(run.info.run_id, "report")


def test_a_strength_at_which_a_seed_diverged_is_not_the_chosen_one(home: Home) -> None:
    """Its last finite loss means nothing, however good it looks."""
    result, explanation = fabricate(home), fabricated.explanation()
    outcomes = tuple(
        replace(one, end="diverged", metrics=one.metrics | {"val_loss": 0.1})
        if (one.seed, one.strengths["weight_decay"]) == (0, 1.0)
        else one
        for one in explanation.outcomes
    )
    before, after = (
        chosen_strength(replace(explanation, outcomes=some), result) for some in (explanation.outcomes, outcomes)
    )
    assert (before.chosen, after.chosen) == (1.0, 0.1)  # type: ignore[union-attr]


def test_the_page_has_all_trials_in_its_drawing(home: Home) -> None:
    result: StudyResult = fabricate(home)
    page = write_report(result, Texts()).page.read_text(encoding="utf-8")
    data, _ = traces(page[page.index('id="figure-gap"') :])
    gaps = [trace for trace in data if trace["yaxis"] == "y" and trace.get("mode") == "markers"]
    assert sum(len(trace["x"]) for trace in gaps) == len(result.trials) + 1, "each, and the best once more"
