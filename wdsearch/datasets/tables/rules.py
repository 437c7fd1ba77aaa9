"""Rules by which the texts of a column become its values: missing ones, numbers, truth values, or the texts themselves."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from wdsearch.datasets.tables.cells import COMMA, FEW, GAPS, POINT, WORDS, Seen, bare, form_of
from wdsearch.datasets.tables.reading import MARKS, Reading
from wdsearch.errors import DataError

TRUE = frozenset(["true", "t", "yes", "y", "on", "1", "wahr", "ja", "vrai", "oui", "si", "sí", "verdadero"])
FALSE = frozenset(["false", "f", "no", "n", "off", "0", "falsch", "nein", "faux", "non", "falso"])
FEWEST_OF_A_CLASS, MOST_CATEGORIES = 5, 50
MOST_EXACT = 2**53
"""Largest integers that 64 bits of a float hold."""
_GROUPING = " \u00a0\u2009\u202f'’"


@dataclass(frozen=True)
class Rule:
    """Rule for one column: its kind (integer, number, truth or text), and how its cells are written.

    `missing` are texts of gaps beside the empty cell; `remark` is what to know about the column, `doubt` why it cannot be learned
    from without a decision.
    """

    kind: str
    decimal: str = "."
    thousands: bool = False
    affix: bool = False
    missing: frozenset[str] = frozenset()
    remark: str = ""
    doubt: str = ""

    def values(self, cells: pa.Array) -> pa.Array:
        """Values of a column's cells, null where they are missing.

        >>> Rule("number", decimal=",", thousands=True).values(pa.array(["1.234,5", ""])).to_pylist()
        [1234.5, None]
        """
        gaps = pa.array(["", *self.missing], cells.type)
        known = pc.if_else(pc.is_in(cells, gaps), pa.scalar(None, cells.type), cells)
        if self.kind == "text":
            return known
        if self.kind == "truth":
            lower = pc.utf8_lower(known)
            return pc.if_else(pc.is_null(lower), None, pc.is_in(lower, pa.array(sorted(TRUE), lower.type)))
        plain = self._plain(known)
        values = plain.cast(pa.float64())
        numbers = [float(text) for text in self.missing if form_of(text)[0] in ("integer", "point", "exponent")]
        if numbers:  # -999.0 is -999
            values = pc.if_else(pc.is_in(values, pa.array(numbers, pa.float64())), None, values)
        large = self.kind == "integer" and (pc.max(pc.abs(values)).as_py() or 0.0) > MOST_EXACT
        return values.cast(pa.int64()) if self.kind == "integer" and not values.null_count and not large else values

    def _plain(self, cells: pa.Array) -> pa.Array:
        """Numbers as programs write them."""
        if self.affix:
            encoded = cells.dictionary_encode()
            words = pa.array([bare(text) for text in encoded.dictionary.to_pylist()], cells.type)
            cells = words.take(encoded.indices)
        if self.thousands:
            marks = _GROUPING + MARKS[self.decimal]
            cells = pc.replace_substring_regex(cells, f"[{marks}]", "")
        cells = pc.replace_substring(cells, "−", "-")
        return cells if self.decimal == "." else pc.replace_substring(cells, ",", ".")


@dataclass(frozen=True)
class Roles:
    """What a study makes of columns, as far as the user says."""

    targets: Collection[str] = ()
    numbers: Collection[str] = ()
    categories: Collection[str] = ()
    unused: Collection[str] = ()


def rules_of(columns: Mapping[str, Seen], reading: Reading, separator: str, roles: Roles) -> dict[str, Rule]:
    """Rule of each column. Raises DataError for what can be read in two ways, with the option that decides.

    >>> seen = Seen()
    >>> seen.learn(pa.array(["1,5", "22,25"]))
    >>> rule = rules_of({"price": seen}, Reading(), ";", Roles())["price"]
    >>> rule.kind, rule.decimal, rule.remark
    ('number', ',', 'decimal comma, as in 1,5')
    """
    missing = {name: _missing(name, seen, reading, roles) for name, seen in columns.items()}
    known = {name: seen.without(missing[name]) for name, seen in columns.items()}
    numeric = {name: seen for name, seen in known.items() if _is_numeric(name, seen, roles)}
    marks = _marks({name: seen for name, seen in numeric.items() if name not in roles.unused}, reading, separator)
    rules = {}
    for name, seen in known.items():
        rule = _of_numbers(seen, marks.get(name, "."), reading) if name in numeric else _of_texts(name, seen, roles)
        rules[name] = replace(rule, missing=missing[name])
        if rule.doubt and name in roles.targets:
            raise DataError(f"the target {name!r}: {rule.doubt}")
    return rules


# -- missing values ------------------------------------------------------------------------------------------------


def _missing(name: str, seen: Seen, reading: Reading, roles: Roles) -> frozenset[str]:
    """Texts of missing values in a column: as the options say, else by what stands beside them."""
    declared = reading.missing_in(name)
    if declared is not None and isinstance(reading.missing, Mapping):
        return declared
    sure = {text for text in seen.texts if text.lower() in GAPS} | (declared or set())
    words = {text for text in seen.texts if text.lower() in WORDS} - sure
    others = seen.texts.keys() - sure - words
    if not others:  # numbers, or nothing but gaps
        if name in roles.targets and len(seen.numbers) <= FEW:
            if declared is not None:
                return frozenset(sure)
            _ask_of_target(name, seen, words if seen.numeric else set())
        return frozenset(sure | words)
    if declared is not None:
        return frozenset(sure)
    usual = seen.known / (len(others) + len(words)) / 2
    rare = {text for text in words if seen.texts[text] < usual}
    if name in roles.targets:
        _ask_of_target(name, seen, rare)
    return frozenset(sure | rare)


def _ask_of_target(name: str, seen: Seen, words: set[str]) -> None:
    """Raise DataError if texts of a target may be a class as well as missing labels."""
    for text in sorted(words):
        count = seen.texts[text]
        if count >= FEWEST_OF_A_CLASS:
            raise DataError(
                f"the target {name!r} is {text} in {count} of {seen.known + seen.empty} rows: a class, or no label? "
                f"set missing: [{text}] to leave these rows out, missing: [] to take it for a class"
            )


# -- decimal marks -------------------------------------------------------------------------------------------------


def _marks(columns: Mapping[str, Seen], reading: Reading, separator: str) -> dict[str, str]:
    """Decimal mark of each column of numbers."""
    declared = {name: mark for name in columns if (mark := reading.mark(name))}
    open_ones = {name: seen for name, seen in columns.items() if name not in declared}
    points = {name: text for name, seen in open_ones.items() if (text := seen.evident(POINT))}
    commas = {name: text for name, seen in open_ones.items() if (text := seen.evident(COMMA))}
    for name in points.keys() & commas.keys():
        raise DataError(
            f"column {name!r} has decimal points ({points[name]}) and decimal commas ({commas[name]}); "
            "write one of them throughout, or leave the column out by drop"
        )
    if points and commas:
        both = {**dict.fromkeys(points, "."), **dict.fromkeys(commas, ",")}
        examples = f"{_first(points)} has decimal points, {_first(commas)} decimal commas"
        option = ", ".join(f"{name}: '{mark}'" for name, mark in sorted(both.items()))
        raise DataError(f"two ways of writing numbers in one file: {examples}; set decimal: {{{option}}}")
    mark = "." if points else "," if commas else None
    return declared | {name: mark or _guess(name, seen, reading, separator) for name, seen in open_ones.items()}


def _first(examples: Mapping[str, str]) -> str:
    name, text = next(iter(examples.items()))
    return f"{name!r} ({text})"


def _guess(name: str, seen: Seen, reading: Reading, separator: str) -> str:
    """Decimal mark where no column shows one; 1,234 and 1.234 may be either."""
    group = seen.evident(("comma_group",)) or seen.evident(("point_group",))
    if group is None or reading.thousands == "":
        return "," if group and "," in group else "."
    if "," in group and separator == ",":
        return "."
    if "." in group and not (seen.forms["integer"] or seen.forms["comma_group"]):
        return "."  # all numbers have three decimals, as programs write them
    raise DataError(
        f"column {name!r} has numbers such as {group}: is the mark before the last three digits a decimal mark or one of "
        f"thousands? set decimal: {group.lstrip('+-0123456789')[0]!r}, or thousands: {group.lstrip('+-0123456789')[0]!r}"
    )


# -- kinds ---------------------------------------------------------------------------------------------------------


def _is_numeric(name: str, seen: Seen, roles: Roles) -> bool:
    if name in roles.categories or not seen.numeric:
        return False
    codes = seen.forms["code"] and {*seen.forms} <= {"code", "integer"}
    return not seen.forms["text"] and (not codes or name in roles.numbers)


_GROUPED = {".": ("comma_group", "comma_groups"), ",": ("point_group", "point_groups")}
_SPACED = ("space_group", "space_point", "space_comma")
_MIXED = {".": "comma_point", ",": "point_comma"}


def _of_numbers(seen: Seen, mark: str, reading: Reading) -> Rule:
    """Rule of a column all of whose cells are numbers."""
    if doubt := _doubt_about(seen, mark, reading):
        return Rule("text", doubt=doubt)
    affixes = sorted(filter(None, seen.affixes))
    comma, group = seen.evident((*COMMA, "comma_group")), seen.evident(("point_group",))
    thousands = any(seen.forms[form] for form in (*_GROUPED[mark], *_SPACED, _MIXED[mark]))
    remarks = [
        f"decimal comma, as in {comma}" if mark == "," and comma else "",
        f"decimal point, as in {group}" if mark == "." and group and not seen.evident(POINT) else "",
        f"thousands marks removed, as in {seen.evident((*_GROUPED[mark], *_SPACED, _MIXED[mark]))}"
        if thousands
        else "",
        f"{affixes[0]} removed" if affixes else "",
    ]
    whole = {*seen.forms} <= {"integer", "code", "space_group", *_GROUPED[mark]}
    kind = "integer" if whole else "number"
    return Rule(kind, mark, thousands, bool(affixes), remark=", ".join(filter(None, remarks)))


def _doubt_about(seen: Seen, mark: str, reading: Reading) -> str:
    """Reason for which numbers cannot be read with this decimal mark; empty if there is none."""
    if wrong := seen.evident({".": COMMA, ",": POINT}[mark]):
        return f"numbers such as {wrong}, which are none with the decimal mark {mark!r}"
    if reading.thousands == "" and (wrong := seen.evident((*_GROUPED[mark], *_SPACED))):
        return f"numbers such as {wrong}, which are none without a thousands mark"
    affixes = sorted(filter(None, seen.affixes))
    if len(affixes) > 1:
        return f"amounts in {' and '.join(affixes)}: turn them into one unit"
    if affixes and affixes[0] in "%‰" and seen.affixes[""]:
        return f"some numbers with {affixes[0]} and some without: write all alike"
    return ""


def _of_texts(name: str, seen: Seen, roles: Roles) -> Rule:
    """Rule of a column of which some cells are no numbers, or which is not to be one of numbers."""
    if name in roles.categories:
        return Rule("text")
    if seen.numeric and not seen.forms["text"]:
        reason = "leading zeros" if any(text.startswith("0") for text in seen.numbers) else "more than 15 digits"
        return Rule("text", remark=f"{reason}: codes, not quantities")
    if 2 * seen.numeric >= seen.known and len(seen.numbers) > FEW:
        listed = ", ".join(repr(text) for text in list(seen.texts)[:3])
        count = seen.forms["text"]
        return Rule(
            "text",
            doubt=f"numbers, and {count} other {'cell' if count == 1 else 'cells'} ({listed}): name what "
            f"means a missing value by missing: [{listed}]",
        )
    spelled = {text.lower() for text in [*seen.texts, *seen.numbers]}
    if spelled and spelled <= TRUE | FALSE and {*seen.texts} and len(seen.texts) < 10_000:
        plain = spelled <= {"true", "false"}
        if plain or len({*seen.texts, *seen.numbers}) > 2:
            variants = ", ".join(sorted({*seen.texts, *seen.numbers}))
            return Rule("truth", remark="" if plain and len(seen.texts) <= 2 else f"{variants} read as true or false")
    return Rule("text", remark=", ".join(filter(None, [_kept_words(seen), _alike(seen)])))


def _kept_words(seen: Seen) -> str:
    words = [(text, count) for text, count in seen.texts.items() if text.lower() in GAPS | WORDS]
    return ", ".join(f"{text} is a value ({count} rows); with missing: [{text}] a gap" for text, count in words)


def _alike(seen: Seen) -> str:
    """Remark on texts that differ by capitals only, of a column of few."""
    if len(seen.texts) > MOST_CATEGORIES:
        return ""
    lower = [text.lower() for text in seen.texts]
    alike = sorted(text for text in seen.texts if lower.count(text.lower()) > 1)
    return f"different by capitals alone: {', '.join(alike)}" if alike else ""
