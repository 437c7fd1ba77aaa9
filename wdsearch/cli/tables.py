"""Formats a study's result and progress as tables for the terminal."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Group
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wdsearch.messages import shown_setting
from wdsearch.search.status import StudyStatus
from wdsearch.storage.results import StudyResult, settings_of
from wdsearch.tracking.serving import PORT
from wdsearch.trial.result import Result


def summary_table(result: StudyResult) -> Table:
    """The best trial beside the unregularized baseline."""
    best, baseline = result.best, result.baseline
    table = Table(title=f"{result.study}: best of {sum(result.counts.values())} trials", title_justify="left")
    table.add_column("")
    table.add_column(f"best (trial {best.number})" if best else "best", justify="right", style="bold green")
    table.add_column("baseline (unregularized)", justify="right")
    for row in _rows(best.result if best else None, baseline, result.metric):
        table.add_row(*row)
    return table


def conclusion(result: StudyResult) -> list[Any]:
    """Output of a finished run: the table, how trials ended, files and pages to look at, and the next command."""
    counts = ", ".join(f"{count} {name}" for name, count in result.counts.items() if count)
    lines: list[Any] = [summary_table(result), f"{counts}"]
    if len(result.pareto) > 1:
        lines.append(f"Pareto front of {' and '.join(result.goals)}: trials {', '.join(map(str, result.pareto))}")
    files = {
        "gap against λ": result.folder / "gap.png",
        "best weights": result.weights,
        "report": result.folder / "report" / "report.html",
    }
    lines += [
        "",
        *([f"[yellow]{escape(_nothing_complete(result))}[/yellow]"] if result.best is None else []),
        *(f"{name:15} {path}" for name, path in files.items() if path.exists()),
        *([f"trained         {escape(result.training)}"] if result.training else []),
        *_memory(result),
        f"all trials      {_page(result)}",
    ]
    if result.best is not None:
        lines.append(f"next            [bold]wdsearch best {result.study}[/bold]  (what to put into your own training)")
    if result.metric and result.best is not None:
        lines.append(f"                [bold]wdsearch explain {result.study}[/bold]  (what λ did, on fresh seeds)")
    return lines


def _nothing_complete(result: StudyResult) -> str:
    """Sentences for a study of which no trial is complete: the likely reason, and the remedy."""
    counts, rates = result.counts, [trial.result.lr for trial in result.trials]
    text = "no trial is complete, so there is no best one"
    if not counts["diverged"]:
        return f"{text}; the log of the study tells how its trials ended: wdsearch status {result.study}"
    span = f"rates from {shown_setting(min(rates))} to {shown_setting(max(rates))} were tried" if rates else ""
    remedy = "lower space.lr.high, or search gradient_clip, and give the study another name"
    return "; ".join(
        filter(None, (f"{text}: {counts['diverged']} trials diverged (a loss that is not finite)", span, remedy))
    )


def _page(result: StudyResult) -> str:
    """Address of the records: a folder, a server's page, or that of a local store, which must be served first."""
    served = f"[bold]wdsearch ui {result.study}[/bold]"
    if result.link is None:
        return served
    return f"{served}, then {result.link}" if result.link.startswith(f"http://127.0.0.1:{PORT}/") else result.link


def status_table(status: StudyStatus) -> Group:
    """A study's progress, its best trial beside the baseline, its workers, and the next command."""
    result = status.result
    share = min(1.0, status.spent / max(1, status.budget))
    counts = ", ".join(f"{count} {name}" for name, count in result.counts.items() if count) or "no trials yet"
    lines: list[Any] = [
        Text.assemble((f"{result.study}  ", "bold"), (status.state, _STATE_STYLES[status.state])),
        Columns(
            [ProgressBar(total=1.0, completed=share, width=32), f"{status.spent}/{status.budget} trials · {counts}"]
        ),
    ]
    if status.training:
        reported = [age for age in status.training.values() if age]
        last = f", last judged after epochs {min(reported)} to {max(reported)} of {status.epochs}" if reported else ""
        lines.append(f"in training: {len(status.training)} trials{last}")
    for worker in status.workers:
        life = "alive" if worker.alive else "gone; its trials go on with the next worker"
        lines.append(
            f"worker {worker.name} at {worker.machine_id.partition(':')[0]}: {life} (beat {worker.silent_s:.0f} s ago)"
        )
    if result.best or result.baseline:
        lines.append(summary_table(result))
    if status.elsewhere:
        lines.append(f"{status.elsewhere} other machines deliver their own records to MLflow")
    if status.undelivered:
        reason = f": {status.delivery_error}" if status.delivery_error else ""
        lines.append(f"[yellow]{status.undelivered} records have not reached MLflow yet{reason}[/yellow]")
    if status.lost:
        lines.append(f"[yellow]not in MLflow, and will not be: {escape(status.lost)}[/yellow]")
    return Group(*lines, *_next(status))


_STATE_STYLES = {"done": "green", "running": "cyan", "starting": "cyan", "stopped": "yellow"}


def _next(status: StudyStatus) -> list[str]:
    name = status.result.study
    if status.state == "stopped":
        return [f"next   [bold]wdsearch work {name}[/bold]  (goes on where it stopped)"]
    if status.state in ("running", "starting"):
        return [f"next   [bold]wdsearch status {name} --watch[/bold]"]
    following = [f"next   [bold]wdsearch best {name}[/bold]  (what to put into your own training)"]
    return [f"next   [bold]wdsearch sync {name}[/bold]", *following[1:]] if status.undelivered else following


def _memory(result: StudyResult) -> list[str]:
    if not result.memory:
        return []
    used, expected = (f"{result.memory[name] / 2**20:.0f} MiB" for name in ("peak", "estimated"))
    return [f"memory          {used} at most; estimated {expected}"]


def _rows(best: Result | None, baseline: Result | None, metric: str) -> list[tuple[str, ...]]:
    sides = (best, baseline)
    settings = [settings_of(side) if side else {} for side in sides]
    metrics = [side.metrics if side else {} for side in sides]
    names = ["train_loss", "val_loss", "gap", f"train_{metric}", f"val_{metric}", f"gap_{metric}"]
    names += [
        name for name in ("val_r2", "val_rmse", "val_mae") if name not in names and name in {**metrics[0], **metrics[1]}
    ]
    if not metric:  # metrics that a user-defined module logs
        names = list(dict.fromkeys([*metrics[0], *metrics[1]]))
    rows = [_row(key, settings) for key in dict.fromkeys([*settings[0], *settings[1]])]
    rows += [_row(name, metrics) for name in names]
    return [*rows, ("epochs", *(str(side.epochs) if side else "" for side in sides))]


def _row(name: str, sides: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return (name, *(shown_setting(side.get(name, "")) for side in sides))


def _schedule(optimizer: Mapping[str, Any]) -> str:
    warmup = f" after a warm-up of {optimizer['warmup']:g} of all steps" if optimizer.get("warmup") else ""
    return f"schedule {optimizer.get('schedule', 'constant')}{warmup}"


def _length(settings: Mapping[str, Any]) -> str:
    """Length of the training in words: steps and rows, and where early stopping ended it."""
    parts = ["planned: the schedule ends with them"]
    if "steps" in settings:
        rows = f", of {settings['batch_size']} rows each" if "batch_size" in settings else ""
        parts.append(f"{settings['steps']} steps, {settings['steps_per_epoch']} an epoch{rows}")
    if "epochs trained" in settings:
        parts.append(f"it stopped after epoch {settings['epochs trained']}")
    if "weights of epoch" in settings:
        parts.append(f"its weights are those of epoch {settings['weights of epoch']}")
    return "; ".join(parts)


def recommendation_table(settings: dict[str, Any]) -> Table:
    """The settings for one's own training, a row each.

    >>> table = recommendation_table({"study": "digits", "trial": 3, "init_args": {"dropout": 0.2}})
    >>> table.title, table.row_count
    ('digits: trial 3', 1)
    """
    title = f"{settings['study']}: trial {settings['trial']}"
    table = Table(title=title, title_justify="left")
    table.add_column("key")
    table.add_column("value", justify="right", style="bold green")
    table.add_column("in torch")
    if "init_args" in settings:
        for key, value in settings["init_args"].items():
            table.add_row(key, shown_setting(value), "argument of the LightningModule")
        return table
    optimizer = settings["optimizer"]
    table.add_row("lr", shown_setting(optimizer["lr"]), f"{settings['torch']['lr']}, {_schedule(optimizer)}")
    for key, value in settings["strengths"].items():
        scale = settings.get("timescale", {}).get(key)
        about = f"; timescale {scale:.4g}: 1 shrinks weights by e over the training" if scale else ""
        table.add_row(key, shown_setting(value), escape(settings["torch"][key] + about))
    for key in settings["off"]:
        table.add_row(key, "off", "")
    for key in settings.get("without effect", ()):
        table.add_row(key, "no effect", "acts on nothing in this network")
    for key, value in settings["model"].items():
        table.add_row(f"model.{key}", str(value), "")
    if "target" in settings:
        table.add_row("target", *_standardised(settings["target"], {"l1", "l2"} & settings["strengths"].keys()))
    table.add_row("epochs", str(settings["epochs"]), _length(settings))
    if "groups" in settings:
        groups = [
            f"{escape(key)} takes what {escape(pattern)} is found in" for key, pattern in settings["groups"].items()
        ]
        table.caption = "the first that matches a name counts:\n" + "\n".join(groups)
        table.caption_justify = "left"
    return table


def _standardised(target: Mapping[str, Sequence[float]], penalties: Collection[str]) -> tuple[str, str]:
    """Formula by which targets were standardised, and what it means for one's own training."""
    formulas = [f"(y - {mean:.6g}) / {scale:.6g}" for mean, scale in zip(target["mean"], target["scale"], strict=True)]
    scaled = (
        f"; the strength of {' and '.join(sorted(penalties))} goes with the loss of such targets" if penalties else ""
    )
    return "\n".join(formulas), f"train on this, and undo it for predictions{scaled}"
