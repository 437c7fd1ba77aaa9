"""The command line as a person calls it: a process of its own."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.commands import FILE, wdsearch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a study was run."""
    place = tmp_path_factory.mktemp("cli")
    (place / "tiny.yaml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WDSEARCH_HOME", raising=False)
        done = wdsearch("run", "tiny.yaml", folder=place)
    assert done.returncode == 0, done.stderr
    (place / "out.txt").write_text(done.stdout)
    assert done.stderr == ""
    return place


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WDSEARCH_HOME", raising=False)


def test_run_ends_with_the_best_trial_beside_the_baseline_and_the_next_command(folder: Path) -> None:
    text = (folder / "out.txt").read_text()
    for part in (
        "tiny: best of 4 trials",
        "trained         on cpu with",
        "in 32 bits; fused, up to",
        "baseline",
        "weight_decay",
        "val_loss",
        "gap",
        "workflowType=machine_learning",
    ):
        assert part in text
    assert "wdsearch best tiny" in text
    assert (folder / ".wdsearch" / "studies" / "tiny" / "gap.png").stat().st_size > 10_000


def test_run_says_in_a_log_how_far_it_is(folder: Path) -> None:
    again = wdsearch("run", "tiny.yaml", "--log", folder=folder)
    assert (again.returncode, again.stdout) == (0, (folder / "out.txt").read_text())
    said = [re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  (.+)", line) for line in again.stderr.splitlines()]
    assert all(said), again.stderr
    assert said[0][1] == "preparing data"


def test_best_prints_a_table_yaml_and_json(folder: Path) -> None:
    table = wdsearch("best", "tiny", folder=folder).stdout
    assert "torch.optim.AdamW(lr=0.001, weight_decay=0.0)" in table
    found = json.loads(wdsearch("best", "tiny", "--format", "json", folder=folder).stdout)
    assert found == yaml.safe_load(wdsearch("best", "tiny", "--format", "yaml", folder=folder).stdout)
    assert found["study"] == "tiny"


def test_best_prints_a_program_that_python_runs(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(wdsearch("best", "tiny", "--format", "python", folder=folder).stdout)
    code = "import sys, torch, train; optimizer = train.build_optimizer(torch.nn.Linear(64, 10));"
    code += "print({*train.build_schedule(optimizer).get_last_lr()}, 'wdsearch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "{0.001} False\n"), done.stderr


def test_status_says_how_the_study_stands_and_loads_neither_torch_nor_mlflow(folder: Path) -> None:
    text = wdsearch("status", "tiny", folder=folder).stdout
    for part in ("tiny  done", "4/4 trials", "baseline (unregularized)", "wdsearch best tiny"):
        assert part in text
    assert wdsearch("status", "tiny", "--watch", folder=folder).stdout.count("4/4 trials") == 1, (
        "it ends when all is done"
    )
    found = json.loads(wdsearch("status", "tiny", "--json", folder=folder).stdout)
    assert (found["state"], found["spent"], found["budget"], found["workers"]) == ("done", 4, 4, [])
    assert found["best"]["values"] == [found["best"]["metrics"]["val_loss"]]
    code = "import sys, wdsearch.search.status, wdsearch.cli.tables; print({'torch', 'mlflow', 'lightning'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_larger_budget_is_shown_as_stopped_until_it_is_run(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / ".wdsearch", tmp_path / ".wdsearch")
    code = "import optuna, sys; s = optuna.load_study(study_name='tiny', storage=sys.argv[1]);"
    code += " s.set_user_attr('config', s.user_attrs['config'] | {'budget': {'trials': 6, 'epochs': 3}})"
    storage = f"sqlite:///{tmp_path / '.wdsearch' / 'optuna.db'}"
    subprocess.run([sys.executable, "-c", code, storage], check=True, capture_output=True)
    text = wdsearch("status", "tiny", folder=tmp_path).stdout
    assert "tiny  stopped" in text
    assert "4/6 trials" in text
    assert "wdsearch work tiny" in text


def test_plot_draws_any_strength(folder: Path) -> None:
    done = wdsearch("plot", "tiny", "--key", "dropout", "-o", "d.png", folder=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "d.png").read_bytes()[:4] == b"\x89PNG"


def test_explain_prints_a_verdict_for_every_claim_and_the_same_for_programs(folder: Path) -> None:
    done = wdsearch("explain", "tiny", "--seeds", "5", folder=folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    text = " ".join(done.stdout.replace("│", " ").split())
    assert "tiny: what weight_decay did, 5 fresh seeds × 3 epochs" in text
    assert sum(text.count(word) for word in ("supported", "contradicted", "no effect:", "undetermined")) == 9
    assert "wdsearch report tiny" in text
    found = json.loads(wdsearch("explain", "tiny", "--json", "--seeds", "5", folder=folder).stdout)
    assert len(found["claims"]) == 9
    for verdict in ("supported", "contradicted", "undetermined"):
        assert text.count(verdict) == sum(claim["verdict"] == verdict for claim in found["claims"])


def test_report_prints_where_the_page_is(folder: Path) -> None:
    from wdsearch.report.to_image import chinese_font

    done = wdsearch("report", "tiny", "--lang", "zh", folder=folder)
    assert done.returncode == 0
    assert done.stderr.startswith("note: ") if chinese_font() is None else not done.stderr
    assert done.stdout.strip().endswith("/.wdsearch/studies/tiny/report/report.zh.html")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "none.yaml"), "there is no such file; beside it: "),
        (("run", "tiny.yaml", "--set", "budget.trials=x"), "--set budget.trials=x: budget.trials is 'x'"),
        (("best", "other"), "there is no study 'other'"),
        (("explain", "other"), "there is no study 'other'"),
        (("explain", "tiny", "--seeds", "0"), "--seeds"),
        (("plot", "tiny", "--key", "l1"), "l1"),
        (("report", "other"), "there is no study 'other'"),
        (("report", "tiny", "--lang", "fr"), "there is no language 'fr'; choose one of: en, zh"),
    ],
)
def test_a_wrong_call_ends_with_2_and_no_traceback(folder: Path, words: tuple[str, ...], text: str) -> None:
    done = wdsearch(*words, folder=folder)
    assert done.returncode == 2
    assert text in done.stderr


@pytest.mark.parametrize("command", ["run", "best", "plot", "explain", "report", "ui", "status", "sync"])
def test_help_is_quick_and_ends_in_an_example(folder: Path, command: str) -> None:
    done = wdsearch(command, "--help", folder=folder)
    assert f"Example: wdsearch {command}" in " ".join(done.stdout.split())
    loaded = "import sys, wdsearch.cli.app; print([m for m in ('torch', 'optuna', 'mlflow', 'lightning') if m in sys.modules])"
    heavy = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout
    assert heavy.strip() == "[]"


def test_ui_serves_the_page_that_it_prints(folder: Path) -> None:
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "wdsearch.cli", "ui", "tiny", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning" in server.stdout.readline()
        for _ in range(480):  # two processes import MLflow, on a machine that may be busy
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.read() == b"OK"
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail("the server did not come up within four minutes")
    finally:
        server.terminate()
        server.wait(timeout=30)
        server.stdout.close()


@pytest.mark.parametrize(
    "module", ["search.status", "launch.workers", "cli.status", "cli.tables", "analysis.trend", "storage.check"]
)
def test_who_looks_at_a_study_does_not_wait_for_torch(module: str) -> None:
    code = f"import sys, wdsearch.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_built_ends_a_worker_with_1_for_it_may_be_there_the_next_time(folder: Path) -> None:
    """Kubernetes ends all workers of a job for a 2."""
    faulty = ("tiny.yaml", "--set", "data.init_args.batch_size=0")
    assert wdsearch("validate", *faulty, folder=folder).returncode == 2
    done = wdsearch("run", *faulty, "--set", "study=faulty", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be built: ValueError" in done.stderr
    assert wdsearch("run", "tiny.yml", folder=folder).returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        ("best", "tiny"),
        ("status", "tiny"),
        ("best", "tiny", "--format", "json"),
        ("best", "tiny", "--format", "python"),
    ],
)
def test_a_finished_study_is_shown_without_torch(folder: Path, words: tuple[str, ...]) -> None:
    code = (
        "import sys; sys.argv[0] = 'wdsearch'\nfrom wdsearch.cli import main\n"
        "try:\n    main()\nfinally:\n    sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tiny" in done.stdout


def test_a_study_of_which_every_trial_diverges_ends_with_1_and_the_remedy(tmp_path: Path) -> None:
    study = yaml.safe_load(FILE)
    study |= {"study": "wild", "optimizer": {"name": "sgd"}, "space": {"l2": {"choices": [1e18, 1e19]}}}
    study["budget"] = {"trials": 2, "epochs": 2}
    (tmp_path / "wild.yaml").write_text(yaml.safe_dump(study))
    ended = wdsearch("run", "wild.yaml", folder=tmp_path)
    assert ended.returncode == 1, ended.stdout
    assert "2 trials diverged" in ended.stdout
    assert "lower space.lr.high" in ended.stdout
    assert "wdsearch best" not in ended.stdout
    named = [
        Path(line[16:].strip()) for line in ended.stdout.splitlines() if line.startswith(("gap", "best w", "report"))
    ]
    assert all((tmp_path / path).exists() for path in named)
