"""A study as frozen data: the words that a study file may use."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field

Number = Annotated[float, AllowInfNan(False)]
Positive = Annotated[float, Field(gt=0), AllowInfNan(False)]
Count = Annotated[int, Field(ge=1)]


def by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def scalar(value: Any) -> Any:
    return value if isinstance(value, Mapping | BaseModel) else {"value": value}


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Source(_Section):
    """What builds the data or the network: a name of ours, or the import path of a class with its arguments."""

    name: str | None = None
    class_path: Annotated[str, Field(pattern=r"^\w+(\.\w+)+$")] | None = None
    init_args: dict[str, Any] = {}


class DataConfig(Source):
    """The data; `split_seed` draws the split."""

    split_seed: Annotated[int, Field(ge=0)] = 0


class OptimizerConfig(_Section):
    """The optimizer and its schedule; `lr` is the baseline's rate, and every trial's if the space has none."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] | None = None
    eps: Positive | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    nesterov: bool | None = None
    decay: Literal["weights", "all"] = "weights"


class Dimension(_Section):
    """One key of the space: a fixed value, a range, choices, or (for decay) a range of timescales."""

    value: Any = None
    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Positive | None = None
    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    timescale: tuple[Positive, Positive] | None = None
    off: bool = False

    @property
    def form(self) -> str:
        """`fixed`, `range`, `choices` or `timescale`."""
        if self.timescale is not None:
            return "timescale"
        if self.choices is not None:
            return "choices"
        return "range" if self.low is not None or self.high is not None else "fixed"

    @property
    def integer(self) -> bool:
        """Whether a range was written in whole numbers."""
        return all(bound is not None and float(bound).is_integer() for bound in (self.low, self.high))


class Limit(_Section):
    """A constraint on a result."""

    max: Number | None = None
    min: Number | None = None


class ObjectiveConfig(_Section):
    """What to minimize or maximize, and what a result must not exceed."""

    minimize: Annotated[list[str], BeforeValidator(_several)] = []
    maximize: Annotated[list[str], BeforeValidator(_several)] = []
    constraints: dict[str, Limit] = {}

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
    epochs: Count


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
    sampler: Annotated[Any, BeforeValidator(by_name)] = None
    pruner: Annotated[Any, BeforeValidator(by_name)] = None


class TrainerConfig(_Section):
    """Lightning's words, and how many threads and fused trials."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: Count = 1
    precision: Literal[32, 64, "bf16-mixed"] = 32
    threads: Literal["auto"] | Count = "auto"
    population: Literal["auto"] | Count = "auto"


class StudyConfig(_Section):
    """A whole study; `load_study` builds and checks it."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]*$", max_length=100)]
    data: Annotated[Any, BeforeValidator(by_name)]
    model: Annotated[Any, BeforeValidator(by_name)]
    task: Literal["classification", "regression"] | None = None
    metric: Literal["accuracy", "balanced_accuracy", "r2"] | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    space: dict[str, Annotated[Dimension, BeforeValidator(scalar)]]
    objective: ObjectiveConfig = ObjectiveConfig()
    budget: BudgetConfig
    search: SearchConfig = SearchConfig()
    trainer: TrainerConfig = TrainerConfig()
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def batch(self) -> int:
        """Trials asked at a time."""
        gaussian = isinstance(self.search.sampler, Choice) and self.search.sampler.name == "gp"
        return self.search.batch or (4 if gaussian else 16)

    def dump(self) -> dict[str, Any]:
        """The study as JSON can hold it; own objects by the names of their types."""
        return _plain(self.model_dump(exclude_unset=True))


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
