"""A study as frozen data: the words that a study file may use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from wdsearch.groups import group_key, group_name
from wdsearch.study.cron import ScheduleConfig
from wdsearch.study.fields import (
    Bound,
    Count,
    DecayConfig,
    Fraction,
    Names,
    Number,
    OwnOr,
    Positive,
    Precision,
    Regex,
    Rule,
    Seed,
    Switch,
    plain,
    ruled,
)


def _scalar(value: Any) -> Any:
    """A value of the space that is no mapping, as a fixed one."""
    return value if isinstance(value, Mapping | BaseModel) else {"value": value}


def _searched(space: "dict[str, Entry]") -> "dict[str, Entry]":
    if all(dimension.form == "fixed" for entry in space.values() for dimension in entry.parts):
        raise PydanticCustomError("allowed", "at least one range, as in weight_decay: {{timescale: [0.01, 10]}}")
    return space


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)


class Source(_Section):
    """Builder of the data or the network: a name of ours, or the import path of a class with its arguments."""

    name: str | None = None
    """One of those that `wdsearch list` shows."""
    class_path: Annotated[str, Field(pattern=r"^\w+(\.\w+)+$")] | None = None
    """Import path of an own class, `package.module.Class`: beside the study file, or installed."""
    init_args: dict[str, Any] = {}
    """Arguments of the class."""
    _folder: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any) -> None:
        """The validation's context names the study file's folder."""
        self._folder = (context or {}).get("folder")

    @property
    def folder(self) -> Path | None:
        """Folder in which the module of `class_path` is looked for first."""
        return self._folder


class DataConfig(Source):
    """The data; `split_seed` draws the split."""

    split_seed: Seed = 0
    """Draws the split into training, validation and test rows; apart from the study's own seed."""


class OptimizerConfig(_Section):
    """The optimizer and its schedule; `lr` is the baseline's rate, and every trial's if the space has none."""

    name: str = "adamw"
    """The optimizer: one of those that `wdsearch list` shows."""
    lr: Positive = 1e-3
    """Learning rate of the baseline, and of every trial if the space has none."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The rate after the warm-up: constant, or a cosine down to 0."""
    warmup: Fraction = 0.0
    """Share of all steps in which the rate rises to its full value."""
    decay: Annotated[DecayConfig, BeforeValidator(ruled, json_schema_input_type=Rule | DecayConfig)] = DecayConfig()
    """Parameters that decay: `weights` only (no biases, norm scales, embeddings), or `all`; or a mapping with exceptions."""

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's own options, as far as they are given."""
        return self.model_dump(exclude=set(OptimizerConfig.model_fields), exclude_none=True)


def with_options() -> type[OptimizerConfig]:
    """The section with the options of all optimizers as keys; it imports torch, for their table does.

    >>> with_options()(name="adamw", eps=1e-6).options
    {'eps': 1e-06}
    """
    from wdsearch.study.options import with_optimizers

    return with_optimizers(OptimizerConfig)


def _optimizer(value: Any, _: Any) -> OptimizerConfig:
    return with_options().model_validate(value)


class Dimension(_Section):
    """One key of the space: a fixed value, a range, choices, or (for decay) a range of timescales."""

    value: Any = None
    """A fixed value; the same as writing it without braces."""
    low: Bound | None = None
    """The range's lower end."""
    high: Bound | None = None
    """The range's upper end."""
    log: Switch = False
    """Search the range in logarithms."""
    step: Positive | None = None
    """Search the range in steps from `low`."""
    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    """Search among these values."""
    timescale: tuple[Positive, Positive] | None = None
    """Search how long decay remembers, in training lengths: at 1 weights shrink by e over the training."""
    off: Switch = False
    """Search "not at all" as well."""

    @property
    def form(self) -> str:
        """`fixed`, `range`, `choices` or `timescale`; `` if nothing says which."""
        if self.timescale is not None:
            return "timescale"
        if self.choices is not None:
            return "choices"
        if self.low is not None or self.high is not None:
            return "range"
        return "fixed" if "value" in self.model_fields_set else ""

    @property
    def integer(self) -> bool:
        """True for a range that was written in whole numbers: 1, not 1.0."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Group(Dimension):
    """A strength of its own for the parameters, or the layers, whose name `match` is found in."""

    match: Regex
    """Regular expression, found anywhere in a parameter's name (of dropout: a layer's); the first group that matches counts."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=50)] | None = None
    """Name of the group; by default made from `match`."""

    @property
    def label(self) -> str:
        """The group's name."""
        return self.name or group_name(self.match)


class Entry(Dimension):
    """One key of the space as it is written: a dimension, or one for each group of parameters."""

    groups: Annotated[list[Group], Field(min_length=1)] | None = None
    """Strengths of their own for parts of the network, in the order in which their `match` is tried."""

    @property
    def form(self) -> str:
        """Form of the dimension, or `groups`."""
        return "groups" if self.groups is not None else super().form

    @property
    def parts(self) -> Sequence[Dimension]:
        """Dimensions that it stands for: one, or one for each group."""
        return [self] if self.groups is None else self.groups


class Limit(_Section):
    """A constraint on a result."""

    max: Number | None = None
    """The most that a feasible trial's result may be."""
    min: Number | None = None
    """The least that a feasible trial's result may be."""


class ObjectiveConfig(_Section):
    """Goals to minimize or maximize, and limits that a result must not exceed."""

    minimize: Names = []
    """One result or several, such as val_loss or [val_loss, gap]."""
    maximize: Names = []
    """One result or several, such as val_accuracy."""
    constraints: dict[str, Limit] = {}
    """Limits of results: {gap: {max: 0.1}}."""

    @property
    def goals(self) -> list[str]:
        """Names of what is optimized, first those to minimize."""
        return [*self.minimize, *self.maximize] or ["val_loss"]

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Optuna's direction of each goal."""
        downward: list[Literal["minimize", "maximize"]] = ["minimize" for _ in self.minimize]
        return downward + ["maximize" for _ in self.maximize] or ["minimize"]

    @property
    def limits(self) -> dict[str, dict[str, float | None]]:
        """The constraints as plain numbers."""
        return {name: limit.model_dump() for name, limit in self.constraints.items()}


class BudgetConfig(_Section):
    """Budget: finished trials (complete, pruned or diverged) and epochs of each."""

    trials: Count
    """Trials to finish; complete, pruned and diverged ones count. The baseline comes on top."""
    epochs: Count
    """Epochs of each trial."""


class Choice(BaseModel):
    """An entry of a table (a sampler, a pruner, a tracker) by name, with its own options beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Options that were given beside the name."""
        return dict(self.model_extra or {})


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class SearchConfig(_Section):
    """Choice of configurations; `batch` trials are asked at a time, whatever runs them."""

    batch: Count | None = None
    """Trials asked at a time, part of what makes the study; 16 by default, 4 with gp, 1 for an own LightningModule."""
    sampler: Annotated[Any, OwnOr(Choice)] = None
    """Sampler, which chooses configurations, tpe by default; a name, or a name with its options beside it."""
    pruner: Annotated[Any, OwnOr(Choice)] = None
    """Pruner, which ends hopeless trials, halving by default; a name, or a name with its options beside it."""


class TrainerConfig(_Section):
    """Lightning's words, and how many threads and fused trials."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Device to train on."""
    devices: Count = 1
    """Number of devices."""
    precision: Precision = 32
    """Bits of a number in training; auto is 32 everywhere, for what is found should not hang on the device."""
    threads: Literal["auto"] | Count = "auto"
    """CPU threads, by default one for each core; changes the speed, and no result."""
    population: Literal["auto"] | Count = "auto"
    """Most trials in one fused call, by default all that train, the fastest; changes the speed, and no result."""
    options: dict[str, Any] = {}
    """Further arguments of lightning's Trainer, for an own LightningModule: accumulate_grad_batches, strategy and so on."""


class StudyConfig(_Section):
    """A whole study; `load_study` builds and checks it."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", max_length=100)]
    """The study's name, under which it is stored and continued: letters, digits and _ - . (not first)."""
    data: Annotated[Any, OwnOr(DataConfig)]
    """The data: a name, or `name` or `class_path` with `init_args`; `split_seed` draws the split."""
    model: Annotated[Any, OwnOr(Source)]
    """The network: a name, or `name` or `class_path` with `init_args`."""
    task: Literal["classification", "regression"] | None = None
    """Kind of targets to be learned; the data say it by default."""
    metric: Literal["accuracy", "balanced_accuracy", "r2", "rmse", "mae"] | None = None
    """Metric reported beside the loss; by default what the data say, or accuracy, or r2."""
    optimizer: Annotated[SerializeAsAny[OptimizerConfig], WrapValidator(_optimizer)] = OptimizerConfig()
    space: Annotated[dict[str, Annotated[Entry, BeforeValidator(_scalar)]], AfterValidator(_searched)]
    """Space to be searched: `lr`, regularizers, and arguments of the network as `model.<argument>`."""
    objective: ObjectiveConfig = ObjectiveConfig()
    budget: BudgetConfig
    search: SearchConfig = SearchConfig()
    trainer: TrainerConfig = TrainerConfig()
    seed: Seed = 0
    """Seed of initial weights, batches, noise and the sampler."""
    tracking: Annotated[Choice, BeforeValidator(_named, json_schema_input_type=str | Choice)] | None = None
    """Tracker that records the study for people, mlflow by default; a name, or a name with its options beside it."""
    schedule: ScheduleConfig | None = None
    """Timetable by which `wdsearch schedule` starts sweeps of this study, and their workers; it changes no result."""

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Every dimension of the space by its key; a group's is `weight_decay:head`."""
        return {
            group_key(key, part.label) if isinstance(part, Group) else key: part
            for key, entry in self.space.items()
            for part in entry.parts
        }

    @property
    def groups(self) -> dict[str, dict[str, str]]:
        """The regular expressions of each key's groups, by their names and in their order."""
        return {
            key: {group.label: group.match for group in entry.groups}
            for key, entry in self.space.items()
            if entry.groups is not None
        }

    @property
    def batch(self) -> int:
        """Trials asked at a time."""
        gaussian = isinstance(self.search.sampler, Choice) and self.search.sampler.name == "gp"
        return self.search.batch or (4 if gaussian else 16)

    @property
    def most_training(self) -> int:
        """Most trials that train at once: two batches of asked ones, and the baseline."""
        return 2 * self.batch + 1

    def dump(self, defaults: bool = False) -> dict[str, Any]:
        """The study as JSON can hold it, as written or with all defaults; own objects by the names of their types."""
        return plain(self.model_dump(exclude_unset=not defaults))


SECTIONS: dict[tuple[str | int, ...], type[BaseModel]] = {
    ("data",): DataConfig,
    ("model",): Source,
    ("optimizer",): OptimizerConfig,
    ("optimizer", "decay"): DecayConfig,
    ("objective",): ObjectiveConfig,
    ("budget",): BudgetConfig,
    ("search",): SearchConfig,
    ("trainer",): TrainerConfig,
    ("schedule",): ScheduleConfig,
}
