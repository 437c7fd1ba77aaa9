"""The parameters that decay, as a section of a study file."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_serializer

from wdsearch.study.fields import Regex

Rule = Literal["weights", "all"]


class DecayConfig(BaseModel):
    """The parameters that decay: those of a rule, with some, without others, by regular expressions over their names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    rule: Rule = "weights"
    """`weights` (no biases, norm scales, embeddings), or `all`."""
    include: list[Regex] = []
    """Parameters that decay as well: regular expressions, found anywhere in a name."""
    exclude: list[Regex] = []
    """Parameters that do not decay, whatever else says so: regular expressions, found anywhere in a name."""

    @model_serializer(mode="wrap")
    def _as_written(self, handler: Callable[[Any], Any]) -> Any:
        """A rule without exceptions is a word."""
        return handler(self) if self.include or self.exclude else self.rule


def ruled(value: Any) -> Any:
    """A word as a rule without exceptions."""
    return {"rule": value} if isinstance(value, str) else value
