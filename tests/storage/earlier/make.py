"""Stores studies of the version at hand, finished and killed in training, in SQLite and in PostgreSQL.

    PYTHONPATH=.:tests python tests/storage/earlier/make.py tests/storage/earlier/0.1.0

The folder holds the study files, adamw.yaml with a schedule and sgd.yaml; `stored_versions` names the files that are put
beside them. It takes about four minutes and PostgreSQL. Each storage gets four studies: a sweep of adamw, begun by its
schedule with a launched worker; sgd, with an explanation; and both again, killed together with the process that delivers
their records. Later versions get folders of their own, and the earlier ones stay: the tests take up all of them.
"""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import psutil
from support.postgres import USER, Postgres, binaries, running
from support.stored_versions import (
    EXPECTED,
    NODE,
    POSTGRESQL,
    PROJECT,
    SQLITE,
    StoredVersion,
    home_of,
    libraries,
    numbers_of,
    pack,
    processor,
    replace_text,
)

import wdsearch

CHECKOUT, TESTS = Path(wdsearch.__file__).parents[1], Path(__file__).absolute().parents[2]
KILLED = {"adamw": (9, 10), "sgd": (12, 14)}
"""The epochs of a study's worker in which it writes its last checkpoint, and in which it is killed."""
SEEDS = 2
DIE = "--die"
STORED = ("optuna.db", "spool/*.db", "studies/*/.place", "studies/*/best.pt", "studies/*/workers/*")
"""Files of a home folder that are stored: neither what is drawn again, nor MLflow's own store."""


def main(folder: Path) -> None:
    """Store both states in both storages, and check that they agree."""
    version = StoredVersion(folder)
    with TemporaryDirectory() as parent, running() as server:
        studies = make_project(Path(parent, SQLITE), version, SQLITE, None)
        url = server.create("studies")
        again = make_project(Path(parent, POSTGRESQL), version, POSTGRESQL, url)
        assert studies == again, "the storages do not agree"
        dump(server, "studies", Path(parent, POSTGRESQL), version.dump)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, text=True).strip()
    content = {"commit": commit, "libraries": libraries(), "processor": processor(), "seeds": SEEDS, "studies": studies}
    (folder / EXPECTED).write_text(json.dumps(content, indent=1) + "\n")


def make_project(project: Path, version: StoredVersion, storage: str, url: str | None) -> dict[str, Any]:
    """Search all four studies in a folder and pack it; return the numbers of the finished ones, by their files."""
    project.mkdir()
    for path in version.folder.glob("*.yaml"):
        shutil.copy(path, project)
    environment = environment_of(project, url)
    finished = finish(project, environment)
    for study, epochs in KILLED.items():
        kill(project, environment, study, epochs)
    numbers = {study: expected(name, project, url) for study, name in finished.items()}
    files = [path for pattern in STORED for path in home_of(project).glob(pattern)]
    for path in files:
        if path.suffix == ".db":
            replace_text(path, str(project), PROJECT)
    pack(version.archive(storage), project, [*files, *project.glob("*.yaml")])
    return numbers


def environment_of(project: Path, url: str | None) -> dict[str, str]:
    """Environment of the commands: a machine of another name, one thread, and a storage."""
    names = project.with_name(f"{project.name}-names")
    names.mkdir()
    (names / "sitecustomize.py").write_text(f"import platform\nplatform.node = lambda: {NODE!r}\n")
    others = ("WDSEARCH_HOME", "WDSEARCH_STORAGE", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in others}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, (names, CHECKOUT, TESTS))), "OMP_NUM_THREADS": "1"}
    return environment | ({"WDSEARCH_STORAGE": url} if url else {})


def finish(project: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Search both studies to their end; return their names by those of their files."""
    call("schedule", "adamw.yaml", "--once", project=project, environment=environment)
    sweep = next(path.name for path in (home_of(project) / "studies").iterdir())
    call("run", "sgd.yaml", project=project, environment=environment)
    call("explain", "sgd", "--seeds", str(SEEDS), project=project, environment=environment)
    while not is_over(json.loads(call("status", sweep, "--json", project=project, environment=environment))):
        time.sleep(1.0)
    for study in (sweep, "sgd"):
        call("sync", study, project=project, environment=environment)
    return {"adamw": sweep, "sgd": "sgd"}


def is_over(status: Mapping[str, Any]) -> bool:
    """True when a study is done and its launched workers have ended."""
    states = {state for launch in status["launches"] for state in launch["jobs"].values()}
    return status["state"] == "done" and states == {"ended"}


def call(*words: str, project: Path, environment: Mapping[str, str]) -> str:
    """Output of a command of wdsearch; raises CalledProcessError."""
    command = [sys.executable, "-m", "wdsearch.cli", *words]
    return subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def expected(name: str, project: Path, url: str | None) -> dict[str, Any]:
    """Numbers of a finished study."""
    os.environ["WDSEARCH_HOME"] = str(home_of(project))
    result = wdsearch.load_result(name, storage=url)
    best = {key: value for key, value in wdsearch.recommendation(result).items() if key not in ("study", "torch")}
    return {"finished": name, "best": best, "baseline": dict(result.baseline.metrics), "trials": numbers_of(result)}


# -- killed --------------------------------------------------------------------------------------------------------


def kill(project: Path, environment: Mapping[str, str], study: str, epochs: tuple[int, int]) -> None:
    """Begin a study under another name in a process that kills itself in training."""
    words = ["run", f"{study}.yaml", "--set", f"study={study}-killed"]
    command = [sys.executable, str(Path(__file__).absolute()), DIE, *map(str, epochs), *words]
    process = subprocess.run(command, cwd=project, env=environment, check=False)
    assert process.returncode == -signal.SIGKILL, f"{study} ended with {process.returncode}"
    (checkpoint,) = home_of(project).glob(f"studies/{study}-killed/workers/*.pt")
    print(f"{study}-killed: {checkpoint.stat().st_size} bytes of checkpoint")


def run_and_die(last_checkpoint: int, last_epoch: int, words: list[str]) -> None:
    """Call the command line in this process, which writes checkpoints up to an epoch, and dies in a later one."""
    from wdsearch.cli import main as command_line

    def on_validation_start(_: L.Callback, trainer: L.Trainer, __: L.LightningModule) -> None:
        if trainer.current_epoch == last_checkpoint:
            time.sleep(2.0)  # writing one is to take a twentieth of the time at most
            set_checkpoint_interval(1e9)
        if trainer.current_epoch == last_epoch:  # its steps are done, and nothing of it is written yet
            for process in psutil.Process().children(recursive=True):
                process.kill()
            os.kill(os.getpid(), signal.SIGKILL)

    L.Callback.on_validation_start = on_validation_start  # type: ignore[method-assign]
    assert wdsearch.run  # and with it all of its modules
    set_checkpoint_interval(0.0)
    sys.argv = ["wdsearch", *words]
    command_line()


def set_checkpoint_interval(seconds: float) -> None:
    """Set the interval, in whichever module the version has it."""
    modules = [module for name, module in sys.modules.items() if name.startswith("wdsearch.")]
    owners = [module for module in modules if hasattr(module, "CHECKPOINT_S")]
    assert owners
    for module in owners:
        module.CHECKPOINT_S = seconds  # type: ignore[attr-defined]


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


def dump(server: Postgres, database: str, project: Path, target: Path) -> None:
    """Write a database as SQL that any client can send, for this version of the server and later ones."""
    folder = binaries()
    assert folder is not None
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", USER]
    how = ["--inserts", "--rows-per-insert=100", "--no-owner", "--no-privileges"]
    text = subprocess.check_output([str(folder / "pg_dump"), *where, *how, database], text=True)
    lines = [
        line for line in text.splitlines() if not line.startswith(("\\", "SET ", "--", "SELECT pg_catalog.set_config"))
    ]
    content = "\n".join(line for line in lines if line).replace(str(project), PROJECT)
    target.write_bytes(gzip.compress(content.encode(), mtime=0))


if __name__ == "__main__":
    if sys.argv[1] == DIE:
        run_and_die(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    else:
        main(Path(sys.argv[1]))
