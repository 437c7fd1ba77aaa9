"""Formats the output of `init`, `validate` and `list` for the terminal; commands and paths are not to be wrapped."""

import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from wdsearch.messages import counted, printable, shown_setting, shown_time
from wdsearch.regularizers import neutral, regularizer_of
from wdsearch.search.preview import Preview
from wdsearch.study.catalog import first_sentence
from wdsearch.study.cron import ScheduleConfig, next_fire
from wdsearch.study.scaffold import Scaffold
from wdsearch.study.schema import Choice, Dimension, Source, StudyConfig

MOST_COLUMNS = 40
"""Columns of a table that are listed even if they are plain numbers."""

# -- validate ------------------------------------------------------------------------------------------------------


def study_overview(preview: Preview, command: str) -> list[RenderableType]:
    """Output of `validate`: the study's parts, its space, warnings, and the command that runs it."""
    config = preview.config
    counts = counted(config.budget.trials, "trial"), counted(config.budget.epochs, "epoch")
    budget = f"{' of '.join(counts)}, and the baseline"
    lines: list[RenderableType] = [
        Text.assemble((config.study, "bold"), (" is sound", "green"), f": {budget}"),
        "",
        _aligned(_parts(preview)),
        *_columns(preview.columns),
        _space(preview),
    ]
    lines += [Text.assemble(("warning", "yellow"), f" {text}") for text in preview.warnings]
    return [*lines, Text.assemble("next  ", (command, "bold"))]


def _aligned(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan")
    for name, text in rows:
        table.add_row(name, escape(text))
    return table


def _parts(preview: Preview) -> list[tuple[str, str]]:
    config, optimizer = preview.config, preview.config.optimizer
    goals = [f"{way} {name}" for way, name in zip(config.objective.directions, config.objective.goals, strict=True)]
    warmup = f" after a warm-up of {optimizer.warmup:.0%} of the steps" if optimizer.warmup else ""
    decay = f", {preview.decayed:,} of them decay" if preview.decayed is not None else ""
    weighted = ", its classes weighted" if preview.task.class_weights else ""
    task_and_optimizer = [
        ("task", f"{preview.task.name}, with {preview.task.metric.name} beside the loss{weighted}"),
        *([("", _standardised(preview.task.scale))] if preview.task.scale else []),
        (
            "optimizer",
            f"{optimizer.name}, {optimizer.schedule} rate{warmup}, {preview.steps:,} steps; the baseline at lr {optimizer.lr:g}",
        ),
    ]
    return [
        ("data", _data(preview)),
        *([("", preview.about)] if preview.about else []),
        ("network", f"{_name(config.model)}: {preview.parameters:,} parameters{decay}"),
        *(task_and_optimizer if preview.decayed is not None else []),
        ("training", preview.training),
        ("goal", "; ".join([", ".join(goals), *_limits(config)])),
        ("sampler", f"{_chosen(config.search.sampler, 'tpe')}, {config.batch} trials asked at a time"),
        ("pruner", _pruner(preview)),
        *([("tracking", _chosen(config.tracking, ""))] if config.tracking else []),
        *([("schedule", _schedule(config.schedule))] if config.schedule else []),
    ]


def _columns(notes: Iterable[Any]) -> list[RenderableType]:
    """What became of each column of a table; plain numbers beyond `MOST_COLUMNS` are counted."""
    table, more = Table("column", "read as", "sample", "missing", "remark"), 0
    for note in notes:
        if table.row_count >= MOST_COLUMNS and note.became == "number" and not note.remark:
            more += 1
            continue
        missing = f"{note.missing:,}" if note.missing else ""
        table.add_row(
            *(escape(printable(text)) for text in (note.name, note.became, note.sample, missing, note.remark))
        )
    lines: list[RenderableType] = [table] if table.row_count else []
    return [*lines, f"and {counted(more, 'number')} more"] if more else lines


def _standardised(scale: Iterable[float]) -> str:
    deviations = ", ".join(f"{value:.4g}" for value in scale)
    return f"losses in units of the target's training variance (deviation {deviations}); rmse and mae in its own"


def _schedule(plan: ScheduleConfig) -> str:
    coming = shown_time(next_fire(plan.cron, plan.timezone, time.time()))
    return f"{plan.spec}, next {coming}; {counted(plan.workers, 'worker')} on {plan.on}"


def _data(preview: Preview) -> str:
    rows = ", ".join(f"{count:,} {part}" for part, count in preview.rows.items())
    sizes = [f"{rows} rows"] if rows else []
    sizes += [f"{preview.inputs:,} features"] if preview.inputs is not None else []
    if preview.outputs is not None:
        sizes.append(counted(preview.outputs, "class" if preview.task.name == "classification" else "target"))
    return f"{_name(preview.config.data)}: {'; '.join(sizes)}; {counted(preview.batches, 'batch')} an epoch"


def _name(source: Any) -> str:
    if isinstance(source, Source):
        return str(source.name or source.class_path)
    return getattr(source, "__qualname__", type(source).__name__)


def _limits(config: StudyConfig) -> list[str]:
    bounds = [(name, limit.min, limit.max) for name, limit in config.objective.constraints.items()]
    least = [f"{name} ≥ {low:g}" for name, low, _ in bounds if low is not None]
    return least + [f"{name} ≤ {high:g}" for name, _, high in bounds if high is not None]


def _chosen(choice: Any, default: str) -> str:
    if choice is None:
        return f"{default} (by default)"
    if not isinstance(choice, Choice):
        return type(choice).__name__
    options = ", ".join(f"{key} {value}" for key, value in choice.options.items())
    return f"{choice.name} ({options})" if options else choice.name


def _pruner(preview: Preview) -> str:
    default = "halving" if len(preview.config.objective.goals) == 1 else "none"
    name = _chosen(preview.config.search.pruner, default)
    if not preview.rungs:
        return f"{name}: every trial trains to the end"
    epochs = ", ".join(map(str, preview.rungs[:6])) + (" ..." if len(preview.rungs) > 6 else "")
    return f"{name}: trials are judged after {epochs} epochs"


def _space(preview: Preview) -> Table:
    table = Table()
    table.add_column("key", style="bold")
    table.add_column("searched", justify="right")
    table.add_column("scale")
    table.add_column("off", justify="right")
    table.add_column("that is")
    for key, dimension in preview.config.dimensions.items():
        searched = escape(_range(dimension))
        table.add_row(key, searched, _scale(dimension), _off(key, dimension), _meaning(preview, key, dimension))
    return table


def _range(dimension: Dimension) -> str:
    if dimension.form == "fixed":
        return f"{_value(dimension.value)} (fixed)"
    if dimension.choices is not None:
        return " | ".join(map(_value, dimension.choices))
    if dimension.timescale is not None:
        return f"timescale {' to '.join(map(_value, dimension.timescale))}"
    return f"{_value(dimension.low)} to {_value(dimension.high)}"


def _value(value: Any) -> str:
    return shown_setting(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _scale(dimension: Dimension) -> str:
    if dimension.form in ("fixed", "choices"):
        return "" if dimension.form == "fixed" else "choices"
    if dimension.step is not None:
        return f"steps of {dimension.step:g}"
    return "log" if dimension.log or dimension.timescale else "linear"


def _off(key: str, dimension: Dimension) -> str:
    return f"at {_value(neutral(key))}" if regularizer_of(key) and dimension.off else ""


def _meaning(preview: Preview, key: str, dimension: Dimension) -> str:
    """A strength's unit; for a timescale the λ, and for a range of λ the timescale, at the study's learning rate."""
    if key == "lr":
        return "peak of the learning rate"
    regularizer = regularizer_of(key)
    if regularizer is None:
        return "argument of the network"
    if regularizer.key == "weight_decay" and dimension.form in ("timescale", "range"):
        ends = [_inverse(preview, end) for end in dimension.timescale or (dimension.low, dimension.high)]
        text = f"{' to '.join(ends)} at lr {preview.config.optimizer.lr:g}"
        return f"in training lengths; λ {text}" if dimension.timescale else f"λ; timescale {text}"
    return regularizer.unit.partition(";")[0]


def _inverse(preview: Preview, value: float | None) -> str:
    """The λ of a timescale, or the timescale of a λ: inverse to each other but for a factor."""
    return f"{preview.decay_at(value):.3g}" if value else "∞"


def parameter_overview(preview: Preview) -> list[RenderableType]:
    """The network's parameters and layers that drop, each with the strengths that act on it."""
    if preview.decayed is None:
        return [Text("a user-defined LightningModule decides itself which of its parameters decay"), ""]
    parameters = Table("parameter", "shape", "decays", "strengths")
    for name, shape, reason, strengths in preview.table:
        decays = Text(f"no: {reason}", "dim") if reason else Text("yes", "green")
        parameters.add_row(escape(name), " × ".join(map(str, shape)), decays, ", ".join(strengths))
    layers = Table("layer that drops", "strengths")
    for name, _, _, strengths in preview.dropout_layers:
        layers.add_row(escape(name), ", ".join(strengths) or Text("none: it keeps its own rate", "dim"))
    return [parameters, *([layers] if preview.dropout_layers else []), ""]


# -- init ----------------------------------------------------------------------------------------------------------


def scaffold_overview(scaffold: Scaffold) -> list[RenderableType]:
    """Output of `init`: the files written, and the next command.

    >>> from pathlib import Path
    >>> lines = scaffold_overview(Scaffold({Path("digits.yaml"): "the study"}))
    >>> str(lines[-1])
    'next  wdsearch validate digits.yaml'
    """
    width = max(len(str(path)) for path in scaffold.files)
    files = [Text.assemble((f"{path!s:{width}}", "cyan"), f"  {about}") for path, about in scaffold.files.items()]
    command = shlex.join(["wdsearch", "validate", str(next(iter(scaffold.files)))])
    return [*map(Text, scaffold.notes), *_columns(scaffold.columns), *files, Text.assemble("next  ", (command, "bold"))]


# -- list ----------------------------------------------------------------------------------------------------------


def catalog_overview(catalog: Mapping[str, list[dict[str, Any]]]) -> list[RenderableType]:
    """Output of `list`: the names a study file takes, each with a summary and its arguments.

    >>> empty = dict.fromkeys(("regularizers", "optimizers", "models", "data", "samplers", "pruners", "trackers", "engines"), [])
    >>> str(catalog_overview(empty)[0])
    'Regularizers  space: {KEY: ...}'
    """
    return [
        *_section("Regularizers", "space: {KEY: ...}", catalog["regularizers"], _strength),
        *_section("Optimizers", "optimizer: {name: ..., OPTION: ...}", catalog["optimizers"], _arguments),
        *_section("Models", "model: {name: ..., init_args: {...}}", catalog["models"], _arguments),
        *_section("Data sets", "data: {name: ..., init_args: {...}}", catalog["data"], _arguments),
        *_section("Samplers", "search: {sampler: {name: ..., OPTION: ...}}", catalog["samplers"], _arguments),
        *_section("Pruners", "search: {pruner: {name: ..., OPTION: ...}}", catalog["pruners"], _arguments),
        *_section("Trackers", "tracking: {name: ..., OPTION: ...}", catalog["trackers"], _arguments),
        *_section("Engines", "wdsearch launch STUDY --on ENGINE -o OPTION=...", catalog["engines"], _options),
    ]


def _section(
    title: str, usage: str, entries: Iterable[Mapping[str, Any]], details: Callable[[Mapping[str, Any]], str]
) -> list[RenderableType]:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True, min_width=16)
    for entry in entries:
        only = f" ({entry['tasks'][0]} only)" if len(entry.get("tasks", [])) == 1 else ""
        text = Text(first_sentence(entry["summary"]) + only)
        below = details(entry)
        table.add_row(entry["name"], text.append(f"\n{below}", "dim") if below else text)
    return [Text.assemble((title, "bold"), f"  {usage}"), table, ""]


def _strength(entry: Mapping[str, Any]) -> str:
    usual, off = entry["usual"], _value(float(entry["off"]))
    searched = f"{_value(usual['low'])} to {_value(usual['high'])}{', log' if usual['log'] else ''}"
    integer = ", integer" if entry["whole"] else ""
    return (
        f"{entry['unit'].partition(';')[0]}; in {entry['allowed']}{integer}; off at {off}; worth searching: {searched}"
    )


def _arguments(entry: Mapping[str, Any]) -> str:
    return ", ".join(map(_argument, entry["arguments"]))


def _options(entry: Mapping[str, Any]) -> str:
    return "\n".join(f"{_argument(option)}: {option['about']}" for option in entry["arguments"])


def _argument(argument: Mapping[str, Any]) -> str:
    default = argument.get("default")
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return argument["name"] if default is None else f"{argument['name']}={text}"
