"""What `init`, `validate` and `list` show in a terminal, as lines and tables; commands and paths are not to be wrapped."""

import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from wdsearch.messages import counted, shown_setting, shown_time
from wdsearch.regularizers import neutral, regularizer_of
from wdsearch.search.preview import Preview
from wdsearch.study.catalog import first_sentence
from wdsearch.study.cron import ScheduleConfig, next_fire
from wdsearch.study.scaffold import Scaffold
from wdsearch.study.schema import Choice, Dimension, Source, StudyConfig

# -- validate ------------------------------------------------------------------------------------------------------


def study_overview(found: Preview, command: str) -> list[RenderableType]:
    """A sound study: its parts, its space, what to beware of, and the command that runs it."""
    config = found.config
    counts = counted(config.budget.trials, "trial"), counted(config.budget.epochs, "epoch")
    budget = f"{' of '.join(counts)}, and the baseline"
    lines: list[RenderableType] = [
        Text.assemble((config.study, "bold"), (" is sound", "green"), f": {budget}"),
        "",
        _aligned(_parts(found)),
        _space(found),
    ]
    lines += [Text.assemble(("warning", "yellow"), f" data: {text}") for text in found.warnings]
    return [*lines, Text.assemble("next  ", (command, "bold"))]


def _aligned(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan")
    for name, text in rows:
        table.add_row(name, escape(text))
    return table


def _parts(found: Preview) -> list[tuple[str, str]]:
    config, optimizer = found.config, found.config.optimizer
    goals = [f"{way} {name}" for way, name in zip(config.objective.directions, config.objective.goals, strict=True)]
    warmup = f" after a warm-up of {optimizer.warmup:.0%} of the steps" if optimizer.warmup else ""
    decay = f", {found.decayed:,} of them decay" if found.decayed is not None else ""
    weighted = ", its classes weighted" if found.task.class_weights else ""
    own = [
        ("task", f"{found.task.name}, with {found.task.metric.name} beside the loss{weighted}"),
        (
            "optimizer",
            f"{optimizer.name}, {optimizer.schedule} rate{warmup}, {found.steps:,} steps; the baseline at lr {optimizer.lr:g}",
        ),
    ]
    return [
        ("data", _data(found)),
        *([("", found.about)] if found.about else []),
        ("network", f"{_name(config.model)}: {found.parameters:,} parameters{decay}"),
        *(own if found.decayed is not None else []),
        ("training", found.training),
        ("goal", "; ".join([", ".join(goals), *_limits(config)])),
        ("sampler", f"{_chosen(config.search.sampler, 'tpe')}, {config.batch} trials asked at a time"),
        ("pruner", _pruner(found)),
        *([("tracking", _chosen(config.tracking, ""))] if config.tracking else []),
        *([("schedule", _schedule(config.schedule))] if config.schedule else []),
    ]


def _schedule(plan: ScheduleConfig) -> str:
    coming = shown_time(next_fire(plan.cron, plan.timezone, time.time()))
    return f"{plan.spec}, next {coming}; {counted(plan.workers, 'worker')} on {plan.on}"


def _data(found: Preview) -> str:
    rows = ", ".join(f"{count:,} {part}" for part, count in found.rows.items())
    sizes = [f"{rows} rows"] if rows else []
    sizes += [f"{found.inputs:,} features"] if found.inputs is not None else []
    if found.outputs is not None:
        sizes.append(counted(found.outputs, "class" if found.task.name == "classification" else "target"))
    return f"{_name(found.config.data)}: {'; '.join(sizes)}; {counted(found.batches, 'batch')} an epoch"


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


def _pruner(found: Preview) -> str:
    default = "halving" if len(found.config.objective.goals) == 1 else "none"
    name = _chosen(found.config.search.pruner, default)
    if not found.rungs:
        return f"{name}: every trial trains to the end"
    shown = ", ".join(map(str, found.rungs[:6])) + (" ..." if len(found.rungs) > 6 else "")
    return f"{name}: trials are judged after {shown} epochs"


def _space(found: Preview) -> Table:
    table = Table()
    table.add_column("key", style="bold")
    table.add_column("searched", justify="right")
    table.add_column("scale")
    table.add_column("off", justify="right")
    table.add_column("that is")
    for key, dimension in found.config.dimensions.items():
        searched = escape(_range(dimension))
        table.add_row(key, searched, _scale(dimension), _off(key, dimension), _meaning(found, key, dimension))
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


def _meaning(found: Preview, key: str, dimension: Dimension) -> str:
    """A strength's unit; of a timescale the λ, and of a range of λ the timescale, at the study's learning rate."""
    if key == "lr":
        return "peak of the learning rate"
    regularizer = regularizer_of(key)
    if regularizer is None:
        return "argument of the network"
    if regularizer.key == "weight_decay" and dimension.form in ("timescale", "range"):
        ends = [_inverse(found, end) for end in dimension.timescale or (dimension.low, dimension.high)]
        text = f"{' to '.join(ends)} at lr {found.config.optimizer.lr:g}"
        return f"in training lengths; λ {text}" if dimension.timescale else f"λ; timescale {text}"
    return regularizer.unit.partition(";")[0]


def _inverse(found: Preview, value: float | None) -> str:
    """The λ of a timescale, or the timescale of a λ: they are each other's inverse but for a factor."""
    return f"{found.decay_at(value):.3g}" if value else "∞"


def parameter_overview(found: Preview) -> list[RenderableType]:
    """The network's parameters and layers that drop, each with the strengths that act on it."""
    if found.decayed is None:
        return [Text("an own LightningModule decides itself which of its parameters decay"), ""]
    parameters = Table("parameter", "shape", "decays", "strengths")
    for name, shape, kept, strengths in found.table:
        decays = Text(f"no: {kept}", "dim") if kept else Text("yes", "green")
        parameters.add_row(escape(name), " × ".join(map(str, shape)), decays, ", ".join(strengths))
    layers = Table("layer that drops", "strengths")
    for name, _, _, strengths in found.dropout_layers:
        layers.add_row(escape(name), ", ".join(strengths) or Text("none: it keeps its own rate", "dim"))
    return [parameters, *([layers] if found.dropout_layers else []), ""]


# -- init ----------------------------------------------------------------------------------------------------------


def scaffold_overview(begun: Scaffold) -> list[RenderableType]:
    """What was written, and the next command."""
    width = max(len(str(path)) for path in begun.files)
    files = [Text.assemble((f"{path!s:{width}}", "cyan"), f"  {about}") for path, about in begun.files.items()]
    command = shlex.join(["wdsearch", "validate", str(next(iter(begun.files)))])
    return [*map(Text, begun.notes), *files, Text.assemble("next  ", (command, "bold"))]


# -- list ----------------------------------------------------------------------------------------------------------


def catalog_overview(found: Mapping[str, list[dict[str, Any]]]) -> list[RenderableType]:
    """All that a study file can name: what it is, and below it what it takes."""
    return [
        *_section("Regularizers", "space: {KEY: ...}", found["regularizers"], _strength),
        *_section("Models", "model: {name: ..., init_args: {...}}", found["models"], _arguments),
        *_section("Data sets", "data: {name: ..., init_args: {...}}", found["data"], _arguments),
        *_section("Samplers", "search: {sampler: {name: ..., OPTION: ...}}", found["samplers"], _arguments),
        *_section("Pruners", "search: {pruner: {name: ..., OPTION: ...}}", found["pruners"], _arguments),
        *_section("Trackers", "tracking: {name: ..., OPTION: ...}", found["trackers"], _arguments),
        *_section("Engines", "wdsearch launch STUDY --on ENGINE -o OPTION=...", found["engines"], _options),
    ]


def _section(
    title: str, place: str, entries: Iterable[Mapping[str, Any]], details: Callable[[Mapping[str, Any]], str]
) -> list[RenderableType]:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True, min_width=16)
    for entry in entries:
        only = f" ({entry['tasks'][0]} only)" if len(entry.get("tasks", [])) == 1 else ""
        text = Text(first_sentence(entry["summary"]) + only)
        below = details(entry)
        table.add_row(entry["name"], text.append(f"\n{below}", "dim") if below else text)
    return [Text.assemble((title, "bold"), f"  {place}"), table, ""]


def _strength(entry: Mapping[str, Any]) -> str:
    usual, off = entry["usual"], _value(float(entry["off"]))
    reach = f"{_value(usual['low'])} to {_value(usual['high'])}{', log' if usual['log'] else ''}"
    kind = ", whole" if entry["whole"] else ""
    return f"{entry['unit'].partition(';')[0]}; in {entry['allowed']}{kind}; off at {off}; worth searching: {reach}"


def _arguments(entry: Mapping[str, Any]) -> str:
    return ", ".join(map(_argument, entry["arguments"]))


def _options(entry: Mapping[str, Any]) -> str:
    return "\n".join(f"{_argument(option)}: {option['about']}" for option in entry["arguments"])


def _argument(argument: Mapping[str, Any]) -> str:
    default = argument.get("default")
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return argument["name"] if default is None else f"{argument['name']}={text}"
