"""Forms of a table's cells: which of its texts are numbers, and in whose way of writing them."""

import re
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

GAPS = frozenset(
    [
        "nan",
        "-nan",
        "null",
        "nil",
        "<na>",
        "n/a",
        "n.a.",
        "n.a",
        "#n/a",
        "#na",
        "#null!",
        "#value!",
        "#div/0!",
        "#ref!",
        "1.#ind",
        "-1.#ind",
        "1.#qnan",
        "-1.#qnan",
        "?",
        ".",
    ]
)
"""Texts of missing values, in small letters."""
WORDS = frozenset(["na", "none", "-", "--", "---", "–", "—"])
"""Texts, in small letters, of missing values beside numbers, and of missing values or of a value beside other texts."""
MOST_TEXTS = 10_000
"""Most different texts of a column that are counted."""
FEW = 20
"""Different numbers up to which a column with some texts may be one of categories."""

_CURRENCIES = r"[$€£¥₹₩₽₺]|USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|kr|zł|Fr\."
_AMOUNT = re.compile(rf"([+-]?)(?:({_CURRENCIES})\s*)?([+-]?[\d.,].*?)\s*(%|‰|{_CURRENCIES})?")
_SPACE = r"[ \u00a0\u2009\u202f'’]"
"""Spaces and apostrophes between groups of three digits."""
_FORMS = {
    "code": r"0\d+|\d{16,}",
    "integer": r"[+-]?\d+",
    "point_groups": r"[+-]?[1-9]\d{0,2}(?:\.\d{3}){2,}",
    "point_comma": r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+,\d+",
    "comma_groups": r"[+-]?[1-9]\d{0,2}(?:,\d{2,3})+,\d{3}",
    "comma_point": r"[+-]?[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}\.\d+",
    "point_group": r"[+-]?[1-9]\d{0,2}\.\d{3}",
    "comma_group": r"[+-]?[1-9]\d{0,2},\d{3}",
    "point": r"[+-]?(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?",
    "comma": r"[+-]?(?:\d+,\d+|,\d+)(?:[eE][+-]?\d+)?",
    "space_point": rf"[+-]?[1-9]\d{{0,2}}(?:{_SPACE}\d{{3}})+\.\d+",
    "space_comma": rf"[+-]?[1-9]\d{{0,2}}(?:{_SPACE}\d{{3}})+,\d+",
    "space_group": rf"[+-]?[1-9]\d{{0,2}}(?:{_SPACE}\d{{3}})+",
    "exponent": r"[+-]?\d+[eE][+-]?\d+",
    "infinite": r"[+-]?(?i:inf|infinity)",
}
_FORM = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _FORMS.items()))
POINT = ("point", "comma_groups", "comma_point", "space_point")
"""Forms that only a decimal point explains."""
COMMA = ("comma", "point_groups", "point_comma", "space_comma")
"""Forms that only a decimal comma explains."""
_USUAL = ("code", "integer", "comma_group", "comma", "point_group", "point")
MANY = 1000
"""Different texts from which on they are judged all at once."""
_CODE, _GROUP = r"^(?:0\d+|\d{16,})$", r"^[+-]?[1-9]\d{0,2}\.\d{3}$"


def form_of(text: str) -> tuple[str, str]:
    """Form of a text (`text` if it is no number), and the currency or percent sign beside the number.

    >>> form_of("1,234"), form_of("1.234,5"), form_of("01067"), form_of("€ 12"), form_of("north")
    (('comma_group', ''), ('point_comma', ''), ('code', ''), ('integer', '€'), ('text', ''))
    """
    text = text.replace("−", "-")
    if (match := _FORM.fullmatch(text)) and match.lastgroup:
        return match.lastgroup, ""
    amount = _AMOUNT.fullmatch(text)
    if amount and (amount[2] or amount[4]) and (match := _FORM.fullmatch(amount[1] + amount[3])) and match.lastgroup:
        return match.lastgroup, amount[2] or amount[4]
    return "text", ""


def bare(text: str) -> str:
    """Number of a text without the currency or percent sign, with a plain minus.

    >>> bare("−$ 12.5"), bare("12 %"), bare("3,5")
    ('-12.5', '12', '3,5')
    """
    text = text.replace("−", "-")
    amount = _AMOUNT.fullmatch(text)
    return text if amount is None or not (amount[2] or amount[4]) else amount[1] + amount[3]


@dataclass
class Seen:
    """What the cells of a column are, as far as the table has been read: counts by form, an example of each, and texts.

    >>> seen = Seen()
    >>> seen.learn(pa.array(["1,5", "2,5", "", "NA"]))
    >>> dict(seen.forms), seen.examples["comma"], dict(seen.texts), seen.empty
    ({'text': 1, 'comma': 2}, '1,5', {'NA': 1}, 1)
    """

    empty: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    affixes: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    numbers: set[str] = field(default_factory=set)

    @property
    def known(self) -> int:
        """Number of cells that are not empty."""
        return self.forms.total()

    @property
    def numeric(self) -> int:
        """Number of cells that are numbers."""
        return self.known - self.forms["text"]

    def evident(self, forms: tuple[str, ...]) -> str | None:
        """An example of one of these forms."""
        return next((self.examples[form] for form in forms if form in self.examples), None)

    def without(self, texts: frozenset[str]) -> "Seen":
        """The same without some texts, which mean missing values."""
        numbers = {text: form_of(text) for text in texts}
        kept = Seen(
            self.empty, Counter(self.forms), dict(self.examples), self.affixes, Counter(self.texts), self.numbers
        )
        for text, (form, _) in numbers.items():
            if form == "text":
                kept.forms["text"] -= kept.texts.pop(text, 0)
            if kept.examples.get(form) == text:  # another of its kind is as good an example; none is none
                del kept.examples[form]
        kept.forms = +kept.forms
        return kept

    def learn(self, cells: pa.Array) -> None:
        """Take in more cells of the column."""
        known = cells.filter(pc.not_equal(cells, ""))
        self.empty += len(cells) - len(known)
        if not len(known) or self._learn_plain(known):
            return
        gaps = pc.is_in(pc.utf8_lower(known), pa.array([*GAPS, *WORDS], known.type))
        self._learn_any(known.filter(gaps))
        others = known.filter(pc.invert(gaps))
        if len(others) and not self._learn_plain(others):
            self._learn_any(others if pc.count_distinct(others).as_py() < MANY else self._learn_usual(others))

    def _learn_usual(self, cells: pa.Array) -> pa.Array:
        """Take in numbers of the usual forms, fast; returns the other cells."""
        for form in _USUAL:
            mask = pc.match_substring_regex(cells, f"^(?:{_FORMS[form]})$")
            self._count(form, mask, cells)
            cells = cells.filter(pc.invert(mask))
        return cells

    def _count(self, form: str, mask: pa.Array, cells: pa.Array) -> None:
        if count := pc.sum(mask).as_py():
            first = pc.index(mask, True).as_py()
            self.forms[form] += count
            self.examples.setdefault(form, cells[first].as_py())
            self.affixes[""] += count
            if len(self.numbers) <= FEW:
                self.numbers.update(cells.filter(mask)[:10_000].unique().to_pylist()[: FEW + 1])

    def _learn_plain(self, cells: pa.Array) -> bool:
        """Take in cells that a program wrote, with decimal points; False if there are others."""
        try:
            values = cells.cast(pa.float64())
        except pa.ArrowInvalid:
            return False
        if not pc.all(pc.is_finite(values)).as_py():
            return False
        point = pc.match_substring(cells, ".")
        group = pc.match_substring_regex(cells, _GROUP)
        whole = pc.invert(pc.match_substring_regex(cells, "[.eE]"))
        code = pc.match_substring_regex(cells, _CODE)
        masks = {
            "code": code,
            "integer": pc.and_not(whole, code),
            "point_group": group,
            "point": pc.and_not(point, group),
            "exponent": pc.and_not(pc.invert(whole), point),
        }
        for form, mask in masks.items():
            self._count(form, mask, cells)
        return True

    def _learn_any(self, cells: pa.Array) -> None:
        for entry in pc.value_counts(cells).to_pylist():
            text, count = entry["values"], entry["counts"]
            form, affix = form_of(text)
            self.forms[form] += count
            self.examples.setdefault(form, text)
            if form != "text":
                self.affixes[affix] += count
                if len(self.numbers) <= FEW:
                    self.numbers.add(text)
            elif text in self.texts or len(self.texts) < MOST_TEXTS:
                self.texts[text] += count
