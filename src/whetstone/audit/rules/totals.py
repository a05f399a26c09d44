"""Parts that do not add up: splits of a data set, the total of a table, sums and products that are written out."""

import re
from collections.abc import Iterator
from math import prod

from whetstone.audit.finding import Check, Claim
from whetstone.audit.markdown import Row, Table
from whetstone.audit.material import Material, Passage
from whetstone.audit.numbers import Number, find_numbers
from whetstone.audit.words import ITEMS

__all__ = ["check_totals"]

_TERM = r"[0-9]{1,3}(?:,[0-9]{3}){1,4}|[0-9]{1,12}(?:\.[0-9]{1,6})?"
_WORDS = r"(?:\s(?!x\s|by\s)[a-zA-Z][a-z-]{0,14}){0,3}"
_EQUATION = re.compile(
    rf"(?<![\w.,/^$%(=*×+-])(?<![=*×x+/^-]\s)(?P<first>{_TERM})(?P<rest>(?:%?{_WORDS}\s?(?P<sign>[+×x*])\s?(?:{_TERM})){{1,6}})%?{_WORDS}"
    rf"\s?(?P<equals>=|≈)\s?~?(?P<total>{_TERM})(?P<scale>[kKMB]?)(?![\w/^]|[.,][0-9]|\s?[+×*/x^-]\s?[0-9]|\s?[KMGT]i?B)"
)
_OPERATOR = re.compile(rf"(?P<sign>[+×x*])\s?(?P<term>{_TERM})(?![0-9])")
_SCALES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9}

_PART = re.compile(
    rf"(?:(?P<n>{_TERM})\s?(?P<share>%?)\s?(?:{ITEMS}\s)?(?:for\s|are\s|in\s(?:the\s)?|as\s)?(?P<part>{{0}})"
    rf"|(?P<part2>{{0}})(?:\sset|\sdata|\s{ITEMS})?\s?[:=]\s?(?P<n2>{_TERM})\s?(?P<share2>%?))(?![\w.,]?[0-9])".replace(
        "{0}", r"train(?:ing)?|valid(?:ation)?|val|dev|test(?:ing)?|held-out|evaluation|eval"
    ),
    re.IGNORECASE,
)
_KINDS = (
    ("train", "training"),
    ("val", "validation"),
    ("dev", "validation"),
    ("test", "test"),
    ("held", "test"),
    ("eval", "test"),
)
_TOTAL = re.compile(
    rf"(?:total(?:\sof|\s{ITEMS})?\s?[:=]?\s?(?P<a>{_TERM})"
    rf"|(?P<b>{_TERM})\s(?:[a-z-]{{2,14}}\s){{0,2}}(?:{ITEMS}|rows|records|in total|total)\s?"
    r"(?:\(|:|,?\s?(?:were\s|are\s|is\s)?(?:split|divided|separated)\s(?:up\s)?(?:in)?to\s))",
    re.IGNORECASE,
)
_RATIO = re.compile(
    r"(?<![\w./-])(?P<parts>[0-9]{1,2}/[0-9]{1,2}(?:/[0-9]{1,2})?)\s(?:%\s)?"
    r"(?:(?:train\w{0,3}|val\w{0,7}|test|random|row|data|stratified|percent)[\s/-]{1,3}){0,4}split(?![a-z])",
    re.IGNORECASE,
)
_TOTAL_LABEL = re.compile(r"(?:grand |overall )?(?:total|sum)s?:?", re.IGNORECASE)
_SUBTOTAL = re.compile(r"total", re.IGNORECASE)
_NOT_ADDED = re.compile(
    r"(?<![a-z])(?:avg|average|mean|median|per|rate|score|accuracy|max|min|peak|p[0-9]{2}|ratio|speed|latency|loss|unique"
    r"|distinct|rank|version|seed|year|date|id|epochs?|%|percent|f1|n)(?![a-z])|%|/",
    re.IGNORECASE,
)
_MOST_ROWS = 200


def check_totals(material: Material) -> Iterator[Check]:
    """Judges equations, splits and tables with a total."""
    for passage in material.passages:
        yield from _equations(passage)
        if passage.sentence is not None:
            yield from _splits(passage)
            yield from _ratios(passage)
    for section in material.report.sections:
        for table in section.tables:
            yield from _tables(table)


def _equations(passage: Passage) -> Iterator[Check]:
    for match in _EQUATION.finditer(passage.text):
        operators = list(_OPERATOR.finditer(match["rest"]))
        signs = {"+" if operator["sign"] == "+" else "×" for operator in operators}
        if len(signs) != 1:
            continue
        terms = [_value(match["first"]), *(_value(operator["term"]) for operator in operators)]
        sign = signs.pop()
        computed = sum(terms) if sign == "+" else prod(terms)
        printed = match["total"] + match["scale"]
        stated = _value(match["total"]) * _SCALES[match["scale"]]
        slack = _step(match["total"]) * _SCALES[match["scale"]] + (0.05 * computed if match["equals"] == "≈" else 0.0)
        # Terms that were rounded make a product uncertain in proportion, and a sum by their last digits.
        texts = [match["first"], *(operator["term"] for operator in operators)]
        blur = sum(
            _step(text) / 2 * (1 if sign == "+" else computed / max(_value(text), 1e-9))
            for text in texts
            if "." in text
        )
        whole = slack == 1 and not blur
        claim = passage.claim(match.start(), match.end())
        if (computed == stated) if whole else abs(computed - stated) <= slack + blur:
            yield Check(claim)
        else:
            written = f" {sign} ".join(texts)
            yield _unequal("equation", claim, f"{written} = {computed:,.10g}, not {printed}")


def _splits(passage: Passage) -> Iterator[Check]:
    """A total with its training, validation and test parts."""
    total = _TOTAL.search(passage.text)
    parts: dict[str, tuple[str, bool]] = {}
    for match in _PART.finditer(passage.text):
        name = (match["part"] or match["part2"]).lower()
        kind = next(kind for start, kind in _KINDS if name.startswith(start))
        if kind in parts:
            return
        parts[kind] = (match["n"] or match["n2"], bool(match["share"] or match["share2"]))
    if not {"training", "test"} <= parts.keys() and not {"training", "validation"} <= parts.keys():
        return
    values = [_value(text) for text, _ in parts.values()]
    written = " + ".join(text for text, _ in parts.values())
    if all(is_share for _, is_share in parts.values()):
        if len(values) == len(_KINDS) // 2 and 80 <= sum(values) <= 120:
            claim = passage.claim(0, len(passage.text))
            claim = Claim(claim.line, f"{written} %", claim.quote)
            good = abs(sum(values) - 100) <= 1
            yield (
                Check(claim)
                if good
                else _unequal("parts-against-total", claim, f"{written} = {sum(values):g} %, not 100 %")
            )
        return
    if total is None or any(is_share for _, is_share in parts.values()):
        return
    text = total["a"] or total["b"]
    claim = passage.claim(total.start(), total.end())
    claim = Claim(claim.line, text, claim.quote)
    if sum(values) == _value(text):
        yield Check(claim)
        return
    left = _value(text) - sum(values)
    explained = any(number.value == abs(left) for number in passage.numbers)
    if not explained and text not in {part for part, _ in parts.values()}:
        yield _unequal("parts-against-total", claim, f"{written} = {sum(values):,.10g}, not {text} ({-left:+,.10g})")


def _ratios(passage: Passage) -> Iterator[Check]:
    """The parts of an "80/10/15 split"."""
    for match in _RATIO.finditer(passage.text):
        parts = [int(part) for part in match["parts"].split("/")]
        if min(parts) >= 5 and 80 <= sum(parts) <= 120:
            claim = passage.claim(match.start(), match.end())
            written = " + ".join(map(str, parts))
            good = abs(sum(parts) - 100) <= 1
            yield Check(claim) if good else _unequal("parts-against-total", claim, f"{written} = {sum(parts)}, not 100")


def _tables(table: Table) -> Iterator[Check]:
    """Each column of counts above a row called total."""
    for at, row in enumerate(table.rows):
        if not _TOTAL_LABEL.fullmatch(row.cells[0].text) or not 2 <= at <= _MOST_ROWS:
            continue
        above = [one for one in table.rows[:at] if not _SUBTOTAL.search(one.cells[0].text)]
        for column in range(1, len(row.cells)):
            heading = row.cells[column].heading
            if not _NOT_ADDED.search(heading):
                yield from _column(above, row, column)


def _column(above: list[Row], row: Row, column: int) -> Iterator[Check]:
    total = _count(row, column)
    counts = [_count(one, column) for one in above]
    parts = [count for count in counts if count is not None]
    if total is None or len(parts) != len(counts) or len(parts) < 2:
        return
    claim = Claim(row.line, total.text, row.text[:160])
    stated = int(total.value)
    values = [int(part.value) for part in parts]
    # A total may be that of the rows since the last one that was a sum itself.
    sums = {sum(values[start:]) for start in range(len(values) - 1)}
    if stated in sums:
        yield Check(claim)
    else:
        shown = " + ".join(f"{value:,}" for value in values[:6]) + (" + …" if len(values) > 6 else "")
        yield _unequal(
            "parts-against-total", claim, f"{shown} = {sum(values):,}, not {total.text} ({stated - sum(values):+,})"
        )


def _count(row: Row, column: int) -> Number | None:
    """The whole number that fills a cell."""
    if column >= len(row.cells):
        return None
    numbers = find_numbers(row.cells[column].text)
    alone = len(numbers) == 1 and numbers[0].is_integer and numbers[0].text == row.cells[column].text
    return numbers[0] if alone and not numbers[0].sign and not numbers[0].bound else None


def _unequal(rule: str, claim: Claim, arithmetic: str) -> Check:
    mend = "correct the number that is wrong, or name the part that is missing"
    return Check.failed(
        "equation" if rule == "equation" else "parts-against-total", "contradicted", claim, arithmetic, mend
    )


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _step(text: str) -> float:
    return float(f"1e-{len(text.partition('.')[2])}")
