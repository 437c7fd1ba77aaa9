"""The words of the report, one table for each language: a third language is one file and one line here."""

from typing import Any

from wdsearch.errors import WdsearchError
from wdsearch.report.texts.en import TEXTS as EN
from wdsearch.report.texts.zh import TEXTS as ZH

LANGUAGES = {"en": EN, "zh": ZH}
"""The texts of each language by their keys; `{names}` in them are filled in."""


class LanguageError(WdsearchError):
    """A language that there are no texts in."""


class Texts:
    """The texts of one language. Raises LanguageError for a language without texts.

    >>> words = Texts("en")
    >>> words("count.pruned", count=12), words.metric("val_loss")
    ('12 pruned', 'validation loss')
    """

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            raise LanguageError(f"there is no language {language!r}; choose one of: {', '.join(LANGUAGES)}")
        self.language = language
        self._table = LANGUAGES[language]

    def __call__(self, key: str, /, **values: Any) -> str:
        """A text with its values filled in; KeyError for an unknown key."""
        return self._table[key].format(**values)

    def get(self, key: str, default: str) -> str:
        """A text that may be missing, as for names that a user chose."""
        return self._table.get(key, default)

    def metric(self, name: str) -> str:
        """A metric's name in the language: `val_loss`, `gap`; a user-defined metric keeps its own."""
        return self.get(f"metric.{name}", name)
