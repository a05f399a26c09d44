"""Named whole numbers, wherever they are written: "12 layers", ``hidden_size: 768``, a row "| Epochs | 3 |"."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from whetstone.audit.finding import Claim
from whetstone.audit.markdown import LINK, Row, Section

__all__ = ["Quantity", "find_quantities", "name_patterns", "row_texts", "section_texts"]

_VALUE = r"(?P<v>[0-9]{1,3}(?:,[0-9]{3}){1,4}|[0-9]{1,12})(?P<scale>[kKMB]?)(?![\w%/]|[.,:-][0-9])"
_PROGRAMS = ("python", "py", "bash", "sh", "shell", "console", "diff", "cpp", "c", "rust", "go", "js", "javascript")
"""Languages of examples, which set what nothing was trained with; JSON and YAML are settings."""

_SCALES = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value of a name, and where it is stated."""

    name: str
    value: int
    claim: Claim


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """Two patterns a name, and one that finds any of the names, because most texts have none."""

    any: re.Pattern[str]
    by_name: Mapping[str, tuple[re.Pattern[str], re.Pattern[str]]]


def name_patterns(names: Mapping[str, str]) -> NamePatterns:
    """Two patterns a name: the name before its value, and the value before its name."""
    by_name = {
        name: (
            re.compile(
                rf"(?<![a-z0-9]){words}[\"'`]?\s{{0,2}}(?:\([^()0-9]{{0,20}}\)\s?)?(?:[:=|]|\sof\s|\sis\s)[\s\"'~]{{0,4}}{_VALUE}",
                re.IGNORECASE,
            ),
            re.compile(
                rf"(?<![\w.,/:$-]){_VALUE}[\s-](?:[a-z][a-z-]{{2,14}}[\s-])?(?P<words>{words})(?![a-z0-9_]|\s?[:=|])",
                re.IGNORECASE,
            ),
        )
        for name, words in names.items()
    }
    return NamePatterns(re.compile("|".join(names.values()), re.IGNORECASE), by_name)


def find_quantities(texts: list[tuple[str, int]], patterns: NamePatterns) -> Iterator[Quantity]:
    """All values of all names in lines of text.

    Args:
        texts: Texts, each with its line in the file.
        patterns: Of :func:`name_patterns`.
    """
    for text, line in texts:
        if not patterns.any.search(text):
            continue
        for name, pair in patterns.by_name.items():
            for pattern in pair:
                for match in pattern.finditer(text):
                    value = int(match["v"].replace(",", "")) * _SCALES[match["scale"]]
                    said = match[0].replace(LINK, "").strip()
                    yield Quantity(
                        name, value, Claim(line, said, text[max(0, match.start() - 40) : match.end() + 40].strip())
                    )


def section_texts(section: Section) -> list[tuple[str, int]]:
    """Sentences, rows and lines of settings of a section; a row of several columns as ``heading | cell``."""
    texts = [(sentence.text, sentence.line_at(0)) for sentence in section.sentences]
    texts += [(text, row.line) for table in section.tables for row in table.rows for text in row_texts(row)]
    return texts + [
        (text, code.line + at)
        for code in section.codes
        if code.language.lower() not in _PROGRAMS
        for at, text in enumerate(code.text.splitlines())
    ]


def row_texts(row: Row) -> list[str]:
    """A row of two cells as it stands; of more, each cell behind its heading."""
    if len(row.cells) == 2:
        return [row.text]
    return [f"{cell.heading} | {cell.text}" for cell in row.cells]
