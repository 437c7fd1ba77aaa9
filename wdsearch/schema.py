"""A study as frozen data: the words that a study file may use."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, PrivateAttr
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


def _finite(value: Any) -> Any:
    """A number as it was written: no text, no boolean, no NaN, nothing that a float cannot hold."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return value
    raise PydanticCustomError("allowed", "a finite number")


Bound = Annotated[int | float, BeforeValidator(_finite)]
Number = Annotated[float, BeforeValidator(_finite)]
Positive = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**128, strict=True)]
Switch = Annotated[bool, Field(strict=True)]


def scalar(value: Any) -> Any:
    """A value of the space that is no mapping, as a fixed one."""
    return value if isinstance(value, Mapping | BaseModel) else {"value": value}


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_several, json_schema_input_type=str | list[str])]


def _searched(space: "dict[str, Dimension]") -> "dict[str, Dimension]":
    if all(dimension.form == "fixed" for dimension in space.values()):
        raise PydanticCustomError("allowed", "at least one range, as in weight_decay: {{timescale: [0.01, 10]}}")
    return space


@dataclass(frozen=True)
class OwnOr:
    """Annotates what is written as a section, or as its `name` alone, or comes from Python as an own object."""

    section: type[BaseModel]

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            _own_or,
            handler(self.section),
            serialization=core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True),
            json_schema_input_schema=core_schema.union_schema([core_schema.str_schema(), handler(self.section)]),
        )


def _own_or(value: Any, section: Any) -> Any:
    if isinstance(value, str):
        return section({"name": value})
    written = value is None or isinstance(value, Mapping | BaseModel | list | int | float)
    return section(value) if written else value


def _dumped(value: Any, info: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=info.exclude_unset)
    return None if value is None else type(value).__name__


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)


class Source(_Section):
    """What builds the data or the network: a name of ours, or the import path of a class with its arguments."""

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
        """Where the module of `class_path` is looked for first."""
        return self._folder


class DataConfig(Source):
    """The data; `split_seed` draws the split."""

    split_seed: Seed = 0
    """Draws the split into training, validation and test rows; apart from the study's own seed."""


class OptimizerConfig(_Section):
    """The optimizer and its schedule; `lr` is the baseline's rate, and every trial's if the space has none."""

    name: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with decoupled decay."""
    lr: Positive = 1e-3
    """Learning rate of the baseline, and of every trial if the space has none."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The rate after the warm-up: constant, or a cosine down to 0."""
    warmup: Fraction = 0.0
    """Share of all steps in which the rate rises to its full value."""
    betas: tuple[Fraction, Fraction] | None = None
    """AdamW's decay rates of the moments; 0.9 and 0.999 by default."""
    eps: Positive | None = None
    """AdamW's ε; 1e-8 by default."""
    momentum: Fraction | None = None
    """SGD's momentum; 0.9 by default."""
    nesterov: Switch | None = None
    """Nesterov's form of SGD's momentum."""
    decay: Literal["weights", "all"] = "weights"
    """Which parameters decay: weights only (no biases, norm scales, embeddings), or all."""


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
        """Whether a range was written in whole numbers: 1, not 1.0."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Limit(_Section):
    """A constraint on a result."""

    max: Number | None = None
    """The most that a feasible trial's result may be."""
    min: Number | None = None
    """The least that a feasible trial's result may be."""


class ObjectiveConfig(_Section):
    """What to minimize or maximize, and what a result must not exceed."""

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
    """How much is spent: finished trials (complete, pruned or diverged) and epochs of each."""

    trials: Count
    """Trials to finish; complete, pruned and diverged ones count. The baseline comes on top."""
    epochs: Count
    """Epochs of each trial."""


class Choice(BaseModel):
    """A sampler or pruner by name, with its own options beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What was given beside the name."""
        return dict(self.model_extra or {})


class SearchConfig(_Section):
    """How configurations are chosen; `batch` trials are asked at a time, whatever runs them."""

    batch: Count | None = None
    """Trials asked at a time, part of what makes the study; 16 by default, 4 with gp, 1 for an own LightningModule."""
    sampler: Annotated[Any, OwnOr(Choice)] = None
    """What chooses configurations, tpe by default; a name, or a name with its options beside it."""
    pruner: Annotated[Any, OwnOr(Choice)] = None
    """What ends hopeless trials, halving by default; a name, or a name with its options beside it."""


class TrainerConfig(_Section):
    """Lightning's words, and how many threads and fused trials."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Where to train."""
    devices: Count = 1
    """How many of them."""
    precision: Literal[32, 64, "bf16-mixed"] = 32
    """Bits of a number in training."""
    threads: Literal["auto"] | Count = "auto"
    """CPU threads; changes the speed, and no result."""
    population: Literal["auto"] | Count = "auto"
    """Most trials in one fused call; changes the speed, and no result."""
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
    """What is learned; the data say it by default."""
    metric: Literal["accuracy", "balanced_accuracy", "r2"] | None = None
    """What is reported beside the loss; by default what the data say, or accuracy, or r2."""
    optimizer: OptimizerConfig = OptimizerConfig()
    space: Annotated[dict[str, Annotated[Dimension, BeforeValidator(scalar)]], AfterValidator(_searched)]
    """What is searched: `lr`, regularizers, and arguments of the network as `model.<argument>`."""
    objective: ObjectiveConfig = ObjectiveConfig()
    budget: BudgetConfig
    search: SearchConfig = SearchConfig()
    trainer: TrainerConfig = TrainerConfig()
    seed: Seed = 0
    """Seed of initial weights, batches, noise and the sampler."""

    @property
    def batch(self) -> int:
        """Trials asked at a time."""
        gaussian = isinstance(self.search.sampler, Choice) and self.search.sampler.name == "gp"
        return self.search.batch or (4 if gaussian else 16)

    def dump(self, defaults: bool = False) -> dict[str, Any]:
        """The study as JSON can hold it, as written or with all defaults; own objects by the names of their types."""
        return _plain(self.model_dump(exclude_unset=not defaults))


SECTIONS: dict[tuple[str | int, ...], type[BaseModel]] = {
    ("data",): DataConfig,
    ("model",): Source,
    ("optimizer",): OptimizerConfig,
    ("objective",): ObjectiveConfig,
    ("budget",): BudgetConfig,
    ("search",): SearchConfig,
    ("trainer",): TrainerConfig,
}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float) else type(value).__name__
