"""The commands of those who run workers: work, launch, stop, logs, storage. What is heavy is imported when it is needed."""

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
"""With which `trend` ends if λ* moved."""


def _files_and_names(context: typer.Context, incomplete: str) -> list[str]:
    return [*study_files(incomplete), *study_names(context, incomplete)]


def work(study: Study, home: HomeOption = None, storage: StorageOption = None) -> None:
    """One more worker of a study that was begun: any number, on any machines, share its budget exactly."""
    from rich.console import Console

    from wdsearch.cli.tables import conclusion
    from wdsearch.search.work import work as join

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
    """Start workers of a study on an engine, and come back; `wdsearch list` shows the engines' options."""
    from wdsearch.cli.status import started
    from wdsearch.launch.workers import launch as start
    from wdsearch.study.file import assignments

    given = assignments(options or [], "-o")
    found = start(
        study,
        on,
        workers,
        given,
        overrides=overrides or [],
        home=home,
        storage=storage,
        dry_run=dry_run,
    )
    if dry_run:
        typer.echo(found.script)
    else:
        _show(started(found))


def stop(study: Study, home: HomeOption = None, storage: StorageOption = None) -> None:
    """End a study's launched workers in order: nothing is lost, and `launch` goes on."""
    from rich.console import Console

    from wdsearch.cli.status import stopped
    from wdsearch.launch.workers import stop as end
    from wdsearch.storage.home import Home

    with Console(stderr=True).status("waiting for the workers to end"):
        found = end(study, Home(home), storage)
    _show(stopped(study, found))
    if any(one.fault for one in found):
        raise typer.Exit(1)


def logs(
    study: Study,
    tail: Annotated[int, typer.Option("--tail", min=1, help="Lines of each worker.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what they say; Ctrl-C ends it.")] = False,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """What launched workers have said."""
    from wdsearch.launch.workers import logs as read
    from wdsearch.storage.home import Home

    place = Home(home)
    found = read(study, place, storage)
    if not found:
        typer.echo(f"no workers of {study} were launched; begin with: wdsearch launch {study}")
    for title, text in found.items():
        _section(title, "\n".join(text.splitlines()[-tail:]))
    with suppress(KeyboardInterrupt):
        while follow:
            time.sleep(LOGS_EVERY_S)
            news = read(study, place, storage)
            for title, text in news.items():
                if more := text[len(found.get(title, "")) :]:
                    _section(title, more.rstrip("\n"))
            found |= news  # an engine may not answer for a moment


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

    place, now = Home(home), time.time()
    entries = scheduled(source) if once or coming or form else []
    if coming:
        from wdsearch.messages import shown_time

        for instant, family in sorted((entry.next(now), entry.family) for entry in entries):
            typer.echo(f"{shown_time(instant)} {family}")
    elif form:
        from wdsearch.launch.emit import emit
        from wdsearch.study.file import assignments

        typer.echo(emit(form, entries, place, storage, assignments(options or [], "-o"), now), nl=False)
    else:
        _serve(source, place, storage, once, here)


def _serve(source: Path, place: Any, storage: str | None, once: bool, here: bool) -> None:
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
    with clear_storage_errors(place, storage):
        opened = patiently(lambda: place.open(storage), _log, PATIENCE_S if once else 0.0)
        made = Scheduler(source, opened.engine, Sweeps(place, storage, here), _log)
        number = serve_once(made) if once else serve(made)
        studies = made.latest() if here and not number else []
        failed = made.latest(FAILED) if once else []
    for study in studies:
        work(study, place.path, storage)
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
    """λ*, gap and result from sweep to sweep; ends with 3 if λ* moved by more than seeds do since the sweep before."""
    from wdsearch.analysis.trend import MOVED
    from wdsearch.analysis.trend import trend as read
    from wdsearch.storage.home import Home, clear_storage_errors

    place = Home(home)
    with clear_storage_errors(place, storage):
        found = read(family, place, storage)
    if as_json:
        import json

        typer.echo(json.dumps(found.as_dict(), indent=2, allow_nan=False))
    else:
        from wdsearch.cli.explanation import trend_lines

        _show(trend_lines(found))
    if found.verdict == MOVED:
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
    from wdsearch.storage.check import examine_storage
    from wdsearch.storage.home import Home

    found = examine_storage(Home(home), url)
    if as_json:
        import json

        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        _show(found.lines)
    if not found.usable:
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
