"""Reads a study's standing: progress, workers, the best trial so far, records that wait to be delivered. No torch here."""

from dataclasses import asdict, dataclass
from typing import Any

from wdsearch.storage.home import Home
from wdsearch.storage.leases import Worker, workers
from wdsearch.storage.results import StudyResult, is_concluded, load_result, spent
from wdsearch.strategies.optuna_private import study_id
from wdsearch.tracking import backlog


@dataclass(frozen=True)
class StudyStatus:
    """A study now. `counts` are trials by what became of them; `budget` is in trials, `undelivered` in records.

    `elsewhere` counts the machines that deliver their own records, which are not known here; `launched` says whether an engine
    has workers of it, though none may be at work yet.
    """

    result: StudyResult
    budget: int
    epochs: int
    workers: tuple[Worker, ...]
    undelivered: int
    elsewhere: int
    delivery_error: str | None
    lost: str | None
    training: dict[int, int]
    launched: bool = False

    @property
    def spent(self) -> int:
        """Trials that count for the budget."""
        return spent(self.result.counts)

    @property
    def state(self) -> str:
        """`done`, `running`, `starting`: its workers wait in a queue, or begin; or `stopped`: there is work left, if only the
        study's end, and nobody does it.
        """
        if is_concluded(self.result):
            return "done"
        if any(worker.alive for worker in self.workers):
            return "running"
        return "starting" if self.launched else "stopped"

    def as_dict(self) -> dict[str, Any]:
        """Fields, for JSON."""
        best, baseline = self.result.best, self.result.baseline
        return {
            "study": self.result.study,
            "state": self.state,
            "spent": self.spent,
            "budget": self.budget,
            "epochs": self.epochs,
            "counts": self.result.counts,
            "training": {str(number): epochs for number, epochs in self.training.items()},
            "goals": list(self.result.goals),
            "best": {"trial": best.number, "values": list(best.values), **_plain(best.result)} if best else None,
            "baseline": _plain(baseline) if baseline else None,
            "workers": [_worker(worker) for worker in self.workers],
            "undelivered": self.undelivered,
            "delivering_elsewhere": self.elsewhere,
            "delivery_error": self.delivery_error,
            "lost": self.lost,
            "link": self.result.link,
        }


def study_status(study: str, home: Home, storage: str | None = None) -> StudyStatus:
    """Standing of a study; raises StudyNotFoundError and StorageError."""
    opened, engine = home.load_with_engine(study, storage)
    result = load_result(opened, home)
    budget = result.config.get("budget", {})
    waiting = backlog(home, study)
    running = (trial for trial in opened.get_trials(deepcopy=False) if trial.state.name == "RUNNING")
    return StudyStatus(
        result=result,
        budget=int(budget.get("trials", 0)),
        epochs=int(budget.get("epochs", 0)),
        workers=tuple(workers(engine, study_id(opened), home.folder(study) / "workers")),
        undelivered=waiting.undelivered,
        elsewhere=waiting.elsewhere,
        delivery_error=waiting.error,
        lost=waiting.lost,
        training={trial.number: max(trial.intermediate_values, default=0) for trial in running},
    )


def _worker(worker: Worker) -> dict[str, Any]:
    """Fields of a worker; its machine and folder are its `place`, as in the storage."""
    fields = asdict(worker)
    return {"place" if name == "machine_id" else name: value for name, value in fields.items()}


def _plain(result: Any) -> dict[str, Any]:
    """Fields of a result with infinite strengths as text, for JSON has none."""
    fields: dict[str, Any] = result.as_dict()
    strengths = fields.get("strengths", {})
    fields["strengths"] = {key: "inf" if value == float("inf") else value for key, value in strengths.items()}
    return fields
