"""Every word of the report, a table for each language: a third language is one file and one line here."""

from typing import Any

from wdsearch.errors import WdsearchError
from wdsearch.report.texts.en import TEXTS as EN
from wdsearch.report.texts.zh import TEXTS as ZH

LANGUAGES = {"en": EN, "zh": ZH}
"""All texts of a language by their keys; `{names}` in them are filled in."""


class LanguageError(WdsearchError):
    """A language that there are no texts in."""


class Texts:
    """The texts of one language. Raises LanguageError for one that there is none of."""

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            raise LanguageError(f"there is no language {language!r}; choose one of: {', '.join(LANGUAGES)}")
        self.language = language
        self._table = LANGUAGES[language]

    def __call__(self, key: str, /, **values: Any) -> str:
        """A text, with what it is about filled in; KeyError for an unknown key."""
        return self._table[key].format(**values)

    def get(self, key: str, default: str) -> str:
        """A text that there may be none of, as for names that a user chose."""
        return self._table.get(key, default)

    def metric(self, name: str) -> str:
        """What a metric is called: `val_loss`, `gap`; one of a user's own keeps its name."""
        return self.get(f"metric.{name}", name)
