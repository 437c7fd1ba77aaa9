"""The command line: each command calls one library function."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Find the right weight decay jointly with the other regularizers, and see what it did.",
    epilog="Example: wdsearch run studies/mnist1d.yaml --set budget.trials=8",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)

HomeOption = Annotated[Path | None, typer.Option("--home", help="Folder of the studies [default: .wdsearch]")]
StorageOption = Annotated[str | None, typer.Option("--storage", help="URL of the Optuna storage")]


class Format(StrEnum):
    """How `best` prints."""

    table = "table"
    yaml = "yaml"
    json = "json"


@app.command(epilog="Example: wdsearch run studies/mnist1d.yaml --set budget.trials=8 --set seed=1")
def run(
    file: Annotated[str, typer.Argument(help="Study file (YAML)")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key")] = None,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """Search a study until its budget is spent; run it again to continue."""
    from wdsearch import reporting

    reporting.run(file, overrides or [], home, storage)


@app.command(epilog="Example: wdsearch best mnist1d --format yaml")
def best(
    study: Annotated[str, typer.Argument(help="Name of the study")],
    format: Annotated[Format, typer.Option("--format", help="How to print")] = Format.table,
    home: HomeOption = None,
    storage: StorageOption = None,
) -> None:
    """What to put into one's own training: the best trial's strengths, and what to pass to torch."""
