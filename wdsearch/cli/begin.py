"""The commands with which a study begins: init, validate, list, schema. Heavy libraries are imported when they are needed."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from wdsearch.cli.completion import study_files, table_files

StudyFile = Annotated[Path, typer.Argument(help="Study file (YAML).", autocompletion=study_files)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file; repeatable.")
]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder, made if need be.", show_default="this one")] = Path(),
    csv: Annotated[
        Path | None,
        typer.Option("--from-csv", help="Table to learn from; Parquet as well.", autocompletion=table_files),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="Its column that is to be predicted; repeatable for quantities."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="How it is written, and kinds of columns: decimal, thousands, missing, encoding, header, drop ...; repeatable.",
        ),
    ] = None,
) -> None:
    """Begin a study: a study file with comments, on a data set of ours or a table of yours."""
    with _waiting("writing the study"):
        from wdsearch.cli.overviews import scaffold_overview
        from wdsearch.study.scaffold import begin_study, table_options

        lines = scaffold_overview(begin_study(folder, csv, target, table_options(options or [])))
    _show(lines)


def validate(
    file: StudyFile,
    overrides: Overrides = None,
    params: Annotated[
        bool, typer.Option("--params", help="Show each parameter, whether it decays, and which strengths act on it.")
    ] = False,
) -> None:
    """Check a study as `run` does before it trains, and show what it will do."""
    overriding = overrides or []
    with _waiting("checking the study"):
        from wdsearch.study.load import load_study

        config = load_study(file, overriding)  # before torch is loaded, for a file that is no YAML
        from wdsearch.cli.overviews import parameter_overview, study_overview
        from wdsearch.search.preview import preview

        checked = preview(config)
    command = ["wdsearch", "run", str(file), *(word for text in overriding for word in ("--set", text))]
    if params:
        _show(parameter_overview(checked))
    _show(study_overview(checked, shlex.join(command)))


def list_names(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """List the names that a study file takes: regularizers, models, data sets, samplers, pruners, trackers, engines."""
    with _waiting("looking into the tables"):
        from wdsearch.cli.overviews import catalog_overview
        from wdsearch.launch.workers import engines
        from wdsearch.study.catalog import catalog
        from wdsearch.tracking import trackers

        names = catalog() | {"trackers": trackers(), "engines": engines()}
    if as_json:
        import json

        typer.echo(json.dumps(names, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(catalog_overview(names))


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File.", show_default="print it")] = None,
) -> None:
    """The JSON Schema of study files, by which editors complete and check them."""
    with _waiting("making the schema"):
        from wdsearch.study.scaffold import schema_text, write_schema

        text = schema_text() if output is None else write_schema(output)
    typer.echo(text)


BEGIN: dict[str, tuple[Callable[..., None], str]] = {
    "init": (init, "wdsearch init cancer --from-csv cancer.csv --target diagnosis"),
    "validate": (validate, "wdsearch validate studies/mnist1d.yaml --set budget.epochs=9"),
    "list": (list_names, "wdsearch list --json"),
    "schema": (schema, "wdsearch schema --output study.schema.json"),
}


def _show(lines: list[Any]) -> None:
    from rich.console import Console

    Console().print(*lines, sep="\n", soft_wrap=True)


@contextmanager
def _waiting(text: str) -> Iterator[None]:
    """A spinner on stderr while torch is being loaded; nothing without a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield
