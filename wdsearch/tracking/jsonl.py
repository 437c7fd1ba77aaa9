"""Records a study as lines of JSON in a folder, for pandas and jq: no server, no library.

`runs.jsonl` has lines on the study and its trials (`run` names them: study, baseline, trial-12): when one begins, with `params`,
`tags` and `dataset`, and when it ends, with `state`, `metrics` and all `tags`. What a key says last holds. `epochs.jsonl` has a
line per trial and epoch. Files of a trial lie in a folder of its name. To read them:

    epochs = pandas.read_json(folder / "epochs.jsonl", lines=True, precise_float=True)
    runs = pandas.read_json(folder / "runs.jsonl", lines=True, precise_float=True).groupby("run").last()
    table = pandas.json_normalize(runs.reset_index().to_dict("records"))  # params.weight_decay, metrics.val_loss ...

Lines are only appended: under a lock, after what others appended was read, and if they change anything. So an epoch that is
trained again after a crash is there once, and a line that a kill cut off is removed by the next who writes.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wdsearch.files import locked
from wdsearch.tracking.serving import Server
from wdsearch.tracking.tracker import STUDY, Delivery, Tracker, ending, finite, measured
from wdsearch.trial.result import Result

if TYPE_CHECKING:  # pydantic, which who asks for a study's status does not wait for
    from wdsearch.study.schema import StudyConfig

RUNS, EPOCHS = "runs.jsonl", "epochs.jsonl"
RUNNING, INTERRUPTED = "RUNNING", "INTERRUPTED"


class JsonlTracker(Tracker):
    """Lines of JSON in `folder/STUDY`; a relative folder lies in the home folder."""

    name, summary = "jsonl", "lines of JSON in a folder, for pandas and jq; no server"

    def __init__(self, home: Path, study: str, node: str = "", *, folder: str = "records") -> None:
        self.study, self.node = study, node
        self.folder = home.absolute() / Path(folder).expanduser() / study
        self._lock = self.folder.with_name(f".{study}.lock")
        self._writer = uuid.uuid4().hex[:8]
        self._buffer: list[tuple[str, dict[str, Any]]] = []
        self._forget()

    @classmethod
    def reopen(cls, home: Path, study: str, node: str = "", token: str = "", **options: Any) -> JsonlTracker | None:
        """Adds to the study's folder; None if there is none here, or that of an earlier study of this name."""
        tracker = cls(home, study, node, **options)
        if not (tracker.folder / RUNS).exists():
            return None
        with locked(tracker._lock):
            tracker._read()
        return None if tracker._is_of_another(token) else tracker

    @classmethod
    def page(cls, home: Path, study: str, port: int, **options: Any) -> Server:
        """The folder: nothing has to be served."""
        folder = cls(home, study, **options).folder
        return Server(f"{folder} (lines of JSON, which pandas and jq read: no server shows them)", port, [], {})

    def start_study(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        token: str = "",
        config: StudyConfig | None = None,
        metric: str = "",
    ) -> None:
        """Begin the study's lines; those of an earlier study of its name are moved to a folder beside, STUDY~TOKEN."""
        with locked(self._lock):
            self._read()
            if self._is_of_another(token):
                self.folder.rename(self.folder.with_name(f"{self.study}~{self._runs[STUDY]['token']}"))
                self._forget()
        self._begin(STUDY, params, tags, dataset, {"token": token} if token else {})
        self.flush()

    def start_trial(
        self,
        key: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        inherited: bool = False,
    ) -> None:
        """Add the line with which a trial begins, or is taken up."""
        self._begin(key, params, tags, dataset)

    def _begin(
        self,
        key: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        more: Mapping[str, str] | None = None,
    ) -> None:
        line = {"state": RUNNING, "writer": self._writer, "params": dict(params), "tags": dict(tags)}
        self._add(key, line | {"dataset": dict(dataset), **(more or {})})

    def _add(self, key: str, line: Mapping[str, Any]) -> None:
        """Numbers that JSON has not become texts; what is empty says nothing."""
        plain = json.loads(json.dumps(dict(line), default=str), parse_constant=_named)
        self._buffer.append(
            (RUNS, {"run": key, "timestamp": _now()} | {name: v for name, v in plain.items() if v != {}})
        )

    def log(self, key: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add an epoch's line."""
        own = {"run": key, "epoch": step, "timestamp": _now()}
        self._buffer.append((EPOCHS, own | finite(metrics) | own))

    def end_trial(
        self,
        key: str,
        state: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        step: int = 0,
        diagnostics: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the line with which a trial ends; what λ did to each layer is a file beside."""
        line = {"state": state, "metrics": measured(metrics, diagnostics), "tags": dict(tags)}
        self._add(key, line | ({"step": step} if step else {}))
        if diagnostics:
            path = self.folder / key / "diagnostics.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(diagnostics, indent=1))

    def log_artifact(self, path: Path, folder: str = "", key: str = STUDY) -> None:
        """Copy a file."""
        copy = self.folder / key / folder / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        new = copy.with_name(f"{copy.name}.{self._writer}")
        shutil.copyfile(path, new)
        new.replace(copy)

    def log_model(self, path: Path, trial: int, requirements: list[str]) -> None:
        """Copy the network, and say of which trial it is."""
        self.log_artifact(path, "model")
        self._add(STUDY, {"model": {"trial": trial, "file": f"model/{path.name}", "requirements": requirements}})

    def sweep(self, results: Mapping[str, Result]) -> None:
        """Add the ends that nobody has written."""
        self.flush()
        is_open = {key for key, run in self._runs.items() if run.get("state") in (RUNNING, INTERRUPTED)}
        for key in is_open & results.keys():
            result = results[key]
            self.end_trial(key, *ending(result), result.epochs, result.diagnostics)
        if STUDY in is_open:
            self.end_study({}, {})

    def discard(self) -> None:
        """Forget the lines that were not flushed."""
        self._buffer.clear()

    def flush(self) -> None:
        """Append the lines that are new, whatever others have written meanwhile."""
        if self._buffer:
            with locked(self._lock):
                self._read()
                self._append(self._buffer)
        self._buffer.clear()

    def stop_writing(self) -> None:
        """Append what is left, and that this process's trials are interrupted, unless another process has them by now."""
        self.flush()
        with locked(self._lock):
            self._read()
            own = [key for key, run in self._runs.items() if run.get("writer") == self._writer]
            unended = [key for key in own if self._runs[key]["state"] == RUNNING]
            self._append((RUNS, {"run": key, "timestamp": _now(), "state": INTERRUPTED}) for key in unended)

    def finish(self, wait_s: float = 120.0, progress: Callable[[int], None] | None = None) -> Delivery:
        """Stop writing; nothing has to be waited for."""
        self.stop_writing()
        return Delivery(str(self.folder))

    # -- files -------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Empty what was read: each run as its lines together say, its last epoch, and how far the files were read."""
        self._runs: dict[str, dict[str, Any]] = {}
        self._epochs: dict[str, int] = {}
        self._ends = {RUNS: 0, EPOCHS: 0}

    def _is_of_another(self, token: str) -> bool:
        recorded = self._runs.get(STUDY, {}).get("token", "")
        return bool(token and recorded and token != recorded)

    def _read(self) -> None:
        """Take in the lines that were appended since; cut off one that has no end."""
        for name in self._ends:
            path = self.folder / name
            if path.exists():
                with path.open("r+b") as file:
                    file.seek(self._ends[name])
                    whole, end, torn = file.read().rpartition(b"\n")
                    self._ends[name] += len(whole + end)
                    if torn:
                        file.truncate(self._ends[name])
                for line in whole.splitlines():
                    self._take(name, json.loads(line))

    def _take(self, name: str, line: dict[str, Any]) -> bool:
        """Take in a line; whether it said anything new."""
        run = line["run"]
        if name == EPOCHS:
            is_new = line["epoch"] > self._epochs.get(run, -1)
            self._epochs[run] = max(line["epoch"], self._epochs.get(run, -1))
            return is_new
        before = self._runs.get(run, {})
        if "tags" in line:
            line["tags"] = before.get("tags", {}) | line["tags"]
        self._runs[run] = before | line
        return any(before.get(key) != value for key, value in line.items() if key != "timestamp")

    def _append(self, lines: Iterable[tuple[str, dict[str, Any]]]) -> None:
        news = [(name, line) for name, line in lines if self._take(name, line)]
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._ends:
            text = "".join(f"{json.dumps(line, allow_nan=False)}\n" for file_name, line in news if file_name == name)
            with (self.folder / name).open("ab") as file:
                self._ends[name] += file.write(text.encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _named(constant: str) -> str:
    """A number that JSON has not, as Python names it: `inf`, `nan`."""
    return str(float(constant))
