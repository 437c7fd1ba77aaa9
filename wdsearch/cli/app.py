"""The command line: each command calls one library function."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wdsearch.cli.begin import BEGIN, Overrides, StudyFile
from wdsearch.cli.workers import OPERATE, RESULTS, HomeOption, StorageOption, Study, storage_commands
from wdsearch.errors import BuildError, DataError, WdsearchError


class _Commands(TyperGroup):
    """Lists the commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        ranks = {panel: rank for rank, panel in enumerate(PANELS.values())}
        return sorted(self.commands, key=lambda name: ranks[getattr(self.commands[name], "rich_help_panel", "")])


PANELS = {"begin": "Begin", "search": "Search", "workers": "Many workers", "results": "Results"}
app = typer.Typer(
    cls=_Commands,
    help="Find the right weight decay jointly with the other regularizers, and see what it did.",
    epilog="Example: wdsearch run studies/mnist1d.yaml --set budget.trials=8",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TRAINING = ("work", "schedule")


class Format(StrEnum):
    """Output formats of `best`."""

    table = "table"
    yaml = "yaml"
    json = "json"
    python = "python"


@app.command(
    rich_help_panel=PANELS["search"],
    epilog="Example: wdsearch run studies/mnist1d.yaml --set budget.trials=8 --set seed=1",
)
def run(
    file: StudyFile,
    overrides: Overrides = None,
    log: Annotated[bool, typer.Option("--log", help="Without a terminal: say now and then how far it is.")] = False,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Search a study until its budget is spent; run it again to continue."""
    from rich.console import Console

    console = Console()
    with _clear_errors():
        tracker = _start_delivery(file, overrides or [], home, storage)
    with (
        _clear_errors(),
        console.status("loading torch, lightning and optuna") if console.is_terminal else nullcontext(),
    ):
        from wdsearch.cli.tables import conclusion
        from wdsearch.search.run import run as search
    with _clear_errors(trains=True):
        progress: Any = "lines" if log else True
        result = search(file, overrides or [], home=home, storage=storage, tracker=tracker, progress=progress)
        console.print(*conclusion(result), sep="\n", soft_wrap=True)
        if result.best is None:
            raise typer.Exit(1)


@app.command(rich_help_panel=PANELS["results"], epilog="Example: wdsearch best mnist1d --format yaml")
def best(
    study: Study,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Show the best trial's learning rate and strengths, and the arguments of torch to train with them.

    `--format python` prints a program in plain torch that trains as the trial was trained.
    """
    with _clear_errors():
        from wdsearch.storage.home import Home
        from wdsearch.storage.recommendation import recommendation
        from wdsearch.storage.results import load_result

        result = load_result(study, Home(home), storage)
        if form is Format.python:
            typer.echo(_text(result), nl=False)
        else:
            _print(recommendation(result), form)


@app.command(rich_help_panel=PANELS["results"], epilog="Example: wdsearch plot mnist1d --key dropout --output gap.png")
def plot(
    study: Study,
    key: Annotated[
        str | None, typer.Option("--key", help="Regularizer on the x axis.", show_default="weight_decay")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG, SVG or PDF.", show_default="gap.png")
    ] = None,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Draw gap and validation loss against a strength."""
    with _clear_errors():
        from wdsearch.report.gap_plot import plot_gap
        from wdsearch.storage.home import Home
        from wdsearch.storage.results import load_result

        result = load_result(study, Home(home), storage)
        path = output or result.folder / "gap.png"
        plot_gap(result, path, key)
        typer.echo(path)


@app.command(rich_help_panel=PANELS["results"], epilog="Example: wdsearch explain mnist1d --seeds 14")
def explain(
    study: Study,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Fresh seeds: 5 decide, 10 choose a best λ too.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Explain what λ did: vary it alone from the best trial, and test each textbook claim; run it again to continue."""
    from rich.console import Console

    console = Console()
    with _clear_errors(), Console(stderr=True).status("loading torch") if console.is_terminal else nullcontext():
        from wdsearch.cli.explanation import explained
        from wdsearch.search.explain import explain as explain_study
    with _clear_errors():
        explanation = explain_study(study, home=home, storage=storage, seeds=seeds, progress=not as_json)
        if as_json:
            import json

            typer.echo(json.dumps(explanation.as_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        else:
            console.print(*explained(explanation), sep="\n", soft_wrap=True)


@app.command(rich_help_panel=PANELS["results"], epilog="Example: wdsearch ui mnist1d --port 5001 --dashboard")
def ui(
    study: Study,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1.")] = 5000,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Optuna's dashboard as well, on the next port.")
    ] = False,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Serve the study's records (MLflow) on this machine and print their page; Ctrl-C ends it."""
    with _clear_errors():
        from wdsearch.storage.home import Home
        from wdsearch.storage.results import load_result
        from wdsearch.strategies.optuna_private import study_id
        from wdsearch.tracking import study_page
        from wdsearch.tracking.serving import dashboard_server, serve

        studies = Home(home)
        result = load_result(study, studies, storage)
        servers = [study_page(result, studies, port)]
        if dashboard:
            servers.append(dashboard_server(studies.url(storage), study_id(result.optuna_study), port + 1))
        serve(servers, typer.echo)


@app.command(
    rich_help_panel=PANELS["results"], epilog="Example: wdsearch report mnist1d --lang zh --output report.html"
)
def report(
    study: Study,
    language: Annotated[str, typer.Option("--lang", help="en or zh.")] = "en",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A copy of the page.", show_default="none")
    ] = None,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Write one HTML file on the result of a study and what λ did, and add it to the study's records (MLflow)."""
    with _clear_errors():
        from wdsearch.storage.home import Home
        from wdsearch.tracking.report import report as write

        written, delivery = write(study, Home(home), storage, language, output)
        for note in written.notes:
            typer.echo(f"note: {note}", err=True)
        typer.echo(output or written.page)
        if delivery is None:
            typer.echo(f"note: {study} has no records, such as a run in MLflow, to show it with", err=True)
        elif delivery.note:
            typer.echo(f"note: {delivery.note}", err=True)
        if delivery is not None and delivery.undelivered:
            reason = delivery.error or "MLflow was too slow"
            typer.echo(f"note: not in MLflow yet ({reason}); deliver it with: wdsearch sync {study}", err=True)


@app.command(rich_help_panel=PANELS["search"], epilog="Example: wdsearch status mnist1d --watch")
def status(
    study: Study,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew until the study is done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Show how far a study is: trials, workers, the best so far, records that have yet to reach MLflow."""
    with _clear_errors():
        from wdsearch.cli.status import show_status, status_record
        from wdsearch.storage.home import Home

        studies = Home(home)
        if as_json:
            import json

            typer.echo(json.dumps(status_record(study, studies, storage), indent=2))
        else:
            show_status(study, studies, storage, watch)


@app.command(rich_help_panel=PANELS["search"], epilog="Example: wdsearch sync mnist1d")
def sync(study: Study, home: HomeOption = None, storage: StorageOption = None) -> None:
    """Deliver to MLflow the records that are left after an outage."""
    with _clear_errors():
        from rich.console import Console

        from wdsearch.storage.home import Home
        from wdsearch.tracking import deliver_backlog as deliver

        console = Console()
        with console.status("delivering to MLflow") as bar:
            count, elsewhere = deliver(
                study,
                Home(home),
                storage,
                lambda left, error: bar.update(f"{left} records left" + (f"; trying again: {error}" if error else "")),
            )
        others = f"; {elsewhere} other machines deliver their own" if elsewhere else ""
        console.print((f"{count} records delivered" if count else "nothing was left to deliver") + others)


def _version(requested: bool) -> bool:
    if requested:
        from importlib.metadata import version

        typer.echo(f"wdsearch {version('wdsearch')}")
        raise typer.Exit
    return requested


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _start_delivery(file: Path, overrides: list[str], home: Path | None, storage: str | None) -> Any:
    """Start the tracker while torch is being loaded; a file that is no YAML is refused here already."""
    from wdsearch.storage.home import Home, clear_storage_errors
    from wdsearch.study.file import StudySource
    from wdsearch.tracking import open_tracker
    from wdsearch.tracking.tracker import TrackerError

    source = StudySource.from_file(file)
    for text in overrides:
        source.override(text)
    name = source.content.get("study")
    if isinstance(name, str) and name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        with (
            clear_storage_errors(Home(home)),
            suppress(TrackerError, TypeError),
        ):  # what is wrong is told with other faults
            tracker = open_tracker(source.content.get("tracking"), Home(home), name, storage)
            tracker.start_delivery()
            return tracker
    return None


def _text(result: Any) -> str:
    """Python text of the best trial's training; what an earlier version did not store is found by building its network."""
    from wdsearch.storage.recommendation import recommended_text

    if text := recommended_text(result):
        return text
    from wdsearch.search.best_model import rebuilt_text

    return rebuilt_text(result)


def _print(settings: dict[str, Any], form: Format) -> None:
    if form is Format.json:
        import json

        typer.echo(json.dumps(settings, indent=2))
    elif form is Format.yaml:
        from wdsearch.study.file import as_yaml

        typer.echo(as_yaml(settings, flow=False).rstrip())
    else:
        from rich.console import Console

        from wdsearch.cli.tables import recommendation_table

        Console().print(recommendation_table(settings))


@contextmanager
def _clear_errors(trains: bool = False) -> Iterator[None]:
    """A wrong call ends with 2 and a failed job with 1, each with its message and no traceback.

    Where it trains, what cannot be built may be there the next time, after a download that failed: who starts workers is
    told by 1 that it may try again.
    """
    try:
        yield
    except WdsearchError as error:
        typer.echo(str(error), err=True)
        may_pass = trains and isinstance(error, BuildError | DataError)
        raise typer.Exit(1 if may_pass else error.exit_code) from None


for _panel, _commands in (("begin", BEGIN), ("workers", OPERATE), ("results", RESULTS)):
    for _name, (_command, _example) in _commands.items():
        app.command(_name, rich_help_panel=PANELS[_panel], epilog=f"Example: {_example}")(
            _clear_errors(_name in TRAINING)(_command)
        )
app.add_typer(storage_commands, name="storage", rich_help_panel=PANELS["workers"])


def main() -> None:
    """Entry point of the command `wdsearch`."""
    app(prog_name="wdsearch")
