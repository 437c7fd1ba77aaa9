"""The commands for workers: work, launch, stop, logs, schedule, trend, storage. Heavy libraries are imported when needed."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from wdsearch.cli.completion import study_files, study_names

Study = Annotated[str, typer.Argument(help="Name of the study.", autocompletion=study_names)]
HomeOption = Annotated[Path | None, typer.Option("--home", help="Folder of the studies.", show_default=".wdsearch")]
StorageOption = Annotated[
    str | None, typer.Option("--storage", help="URL of Optuna's storage.", show_default="SQLite in the home folder")
]
LOGS_EVERY_S = 1.0
MOVED_CODE = 3
"""Exit code of `trend` if λ* moved."""


def _files_and_names(context: typer.Context, incomplete: str) -> list[str]:
    return [*study_files(incomplete), *study_names(context, incomplete)]


def work(study: Study, home: HomeOption = None, storage: StorageOption = None) -> None:
    """Join a study that was begun, as one more worker: any number, on any machines, share its budget exactly."""
    from rich.console import Console

    from wdsearch.cli.tables import conclusion
    from wdsearch.search.run import work as join

    result = join(study, home=home, storage=storage, progress="lines")
    Console().print(*conclusion(result), sep="\n", soft_wrap=True)


def launch(
    study: Annotated[
        str, typer.Argument(help="Study file, or name of a study that was begun.", autocompletion=_files_and_names)
    ],
    on: Annotated[str, typer.Option("--on", help="local, slurm, ray or kubernetes.")] = "local",
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Workers to start.")] = 2,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of the engine; repeatable."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what the engine would be given, and end.")] = False,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Start workers of a study on an engine, and return; `wdsearch list` shows the engines' options."""
    from wdsearch.cli.status import started
    from wdsearch.launch.workers import launch as start
    from wdsearch.study.file import assignments

    engine_options = assignments(options or [], "-o")
    launched = start(
        study,
        on,
        workers,
        engine_options,
        overrides=overrides or [],
        home=home,
        storage=storage,
        dry_run=dry_run,
    )
    if dry_run:
        typer.echo(launched.script)
    else:
        _show(started(launched))


def stop(study: Study, home: HomeOption = None, storage: StorageOption = None) -> None:
    """End a study's launched workers in order: nothing is lost, and `launch` goes on."""
    from rich.console import Console

    from wdsearch.cli.status import stopped
    from wdsearch.launch.workers import stop as end
    from wdsearch.storage.home import Home

    with Console(stderr=True).status("waiting for the workers to end"):
        launches = end(study, Home(home), storage)
    _show(stopped(study, launches))
    if any(launch.fault for launch in launches):
        raise typer.Exit(1)


def logs(
    study: Study,
    tail: Annotated[int, typer.Option("--tail", min=1, help="Lines of each worker.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the logs; Ctrl-C ends it.")] = False,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Print the logs of launched workers."""
    from wdsearch.launch.workers import logs as read
    from wdsearch.storage.home import Home

    studies = Home(home)
    texts = read(study, studies, storage)
    if not texts:
        typer.echo(f"no workers of {study} were launched; begin with: wdsearch launch {study}")
    for title, text in texts.items():
        _section(title, "\n".join(text.splitlines()[-tail:]))
    with suppress(KeyboardInterrupt):
        while follow:
            time.sleep(LOGS_EVERY_S)
            newer = read(study, studies, storage)
            for title, text in newer.items():
                if added := text[len(texts.get(title, "")) :]:
                    _section(title, added.rstrip("\n"))
            texts |= newer  # an engine may not answer for a moment


def schedule(
    source: Annotated[
        Path, typer.Argument(help="Study file with a schedule, or a folder of them.", autocompletion=study_files)
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Start what is due now, and end: for another scheduler that calls this.")
    ] = False,
    here: Annotated[
        bool, typer.Option("--here", help="With --once: start no workers, but be one until the sweep is done.")
    ] = False,
    coming: Annotated[bool, typer.Option("--next", help="Print when each is due next, and end.")] = False,
    form: Annotated[
        str | None, typer.Option("--emit", help="Print it as cronjob, crontab, systemd or sbatch, and end.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="NAME=VALUE", help="With --emit cronjob: of the pods.")
    ] = None,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Start sweeps of studies when their schedule says so, until Ctrl-C; any number of schedulers may run on one storage."""
    from wdsearch.launch.study_folder import scheduled
    from wdsearch.storage.home import Home

    studies, now = Home(home), time.time()
    entries = scheduled(source) if once or coming or form else []
    if coming:
        from wdsearch.messages import shown_time

        for instant, family in sorted((entry.next(now), entry.family) for entry in entries):
            typer.echo(f"{shown_time(instant)} {family}")
    elif form:
        from wdsearch.launch.emit import emit
        from wdsearch.study.file import assignments

        typer.echo(emit(form, entries, studies, storage, assignments(options or [], "-o"), now), nl=False)
    else:
        _serve(source, studies, storage, once, here)


def _serve(source: Path, studies: Any, storage: str | None, once: bool, here: bool) -> None:
    from wdsearch.launch.scheduler import PATIENCE_S, Scheduler, serve, serve_once
    from wdsearch.launch.study_folder import ScheduleError
    from wdsearch.launch.sweeps import Sweeps
    from wdsearch.storage.database import patiently
    from wdsearch.storage.home import clear_storage_errors
    from wdsearch.storage.schedule_claims import FAILED

    if here and not once:
        raise ScheduleError("--here goes with --once")
    if not source.exists():
        raise ScheduleError(f"there is no {source}; give a study file, or a folder of study files")
    with clear_storage_errors(studies, storage):
        opened = patiently(lambda: studies.open(storage), _log, PATIENCE_S if once else 0.0)
        scheduler = Scheduler(source, opened.engine, Sweeps(studies, storage, here), _log)
        number = serve_once(scheduler) if once else serve(scheduler)
        sweeps = scheduler.latest() if here and not number else []
        failed = scheduler.latest(FAILED) if once else []
    for sweep in sweeps:
        work(sweep, studies.path, storage)
    if number:
        _log("ended; sweeps that were begun go on" if not once else "ended before all was started")
        raise typer.Exit(0 if not once else 128 + number)
    if failed:
        _log(f"could not be started: {', '.join(failed)}")
        raise typer.Exit(1)


def _log(text: str) -> None:
    typer.echo(text, err=True)


def trend(
    family: Annotated[str, typer.Argument(help="Name in the study file that is swept.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Compare λ*, gap and result from sweep to sweep; ends with 3 if λ* moved since the last sweep by more than seeds explain."""
    from wdsearch.analysis.trend import MOVED
    from wdsearch.analysis.trend import trend as read
    from wdsearch.storage.home import Home, clear_storage_errors

    studies = Home(home)
    with clear_storage_errors(studies, storage):
        family_trend = read(family, studies, storage)
    if as_json:
        import json

        typer.echo(json.dumps(family_trend.as_dict(), indent=2, allow_nan=False))
    else:
        from wdsearch.cli.explanation import trend_lines

        _show(trend_lines(family_trend))
    if family_trend.verdict == MOVED:
        raise typer.Exit(MOVED_CODE)


storage_commands = typer.Typer(
    help="What a storage can do.", no_args_is_help=True, epilog="Example: wdsearch storage check"
)


@storage_commands.command(epilog="Example: wdsearch storage check postgresql://wdsearch@db.example.org/studies")
def check(
    url: Annotated[str | None, typer.Argument(help="SQLAlchemy URL.", show_default="the one in use")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    home: HomeOption = None,
) -> None:
    """Say what a storage is, whether it can be used from here, and how many workers it carries."""
    from wdsearch.cli.storage_check import storage_lines
    from wdsearch.storage.check import examine_storage
    from wdsearch.storage.home import Home

    report = examine_storage(Home(home), url)
    if as_json:
        import json

        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show(storage_lines(report))
    if not report.usable:
        raise typer.Exit(1)


OPERATE: dict[str, tuple[Callable[..., None], str]] = {
    "launch": (launch, "wdsearch launch studies/mnist1d.yaml --on slurm --workers 8 -o partition=gpu -o gpus=1"),
    "work": (work, "wdsearch work mnist1d --storage postgresql://wdsearch@db/studies"),
    "logs": (logs, "wdsearch logs mnist1d --follow"),
    "stop": (stop, "wdsearch stop mnist1d"),
    "schedule": (schedule, "wdsearch schedule studies/ --storage postgresql://wdsearch@db/studies"),
}


RESULTS: dict[str, tuple[Callable[..., None], str]] = {"trend": (trend, "wdsearch trend mnist1d --json")}


def _section(title: str, text: str) -> None:
    from rich.console import Console

    console = Console()
    console.rule(title, align="left", style="dim")
    typer.echo(text)


def _show(lines: list[Any]) -> None:
    from rich.console import Console

    Console().print(*lines, sep="\n", soft_wrap=True)
