"""Markdown as an audit needs it: sections, sentences, tables with their headings, code blocks, and the line of each.

A reader of lines, not a full parser. Inline markup is stripped, so that ``**70**%`` reads as it is seen; a full parser
takes minutes and gigabytes for ten megabytes of list items, and gives the lines of blocks only. Every step is linear in
the length of the text: patterns have no nested repetition, and long lines and sentences are cut.
"""

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["LINK", "Cell", "Code", "Report", "Row", "Section", "Sentence", "Table", "read_markdown"]

LINK = "\N{WORD JOINER}"
"""Stands behind the text of a link: what is linked is somebody else's claim. Nobody sees it."""

_LONGEST = 1_000
"""Characters; what is longer is no sentence that a person wrote, and is cut."""

_MOST_CELLS = 40

_FENCE = re.compile(r"[ \t>]{0,40}(`{3,200}|~{3,200})[ \t]*([\w+-]{0,30})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_ITEM = re.compile(r"[ \t>]{0,80}(?:[-*+•]|\d{1,4}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?(.*)")
_QUOTED = re.compile(r"[ \t]{0,40}(?:>[ \t]?){1,40}")
_RULER = re.compile(r":?-+:?")
_BAR = re.compile(r"(?<!\\)\|")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]?\s+(?=[^a-z\s])|\s*•\s*|\s;\s")
_ABBREVIATION = re.compile(
    r"(?:\b(?:vs|e\.g|i\.e|al|approx|ca|fig|no|max|min|avg|cf|resp|sec|eq|incl|excl)\.)$", re.IGNORECASE
)
_STRIPPED = (
    (re.compile(r"<!--[^<>]{0,1000}-->"), " "),
    (re.compile(r"!\[[^\[\]]{0,300}\]\([^()]{0,500}\)"), " "),
    (re.compile(r"\[([^\[\]]{1,300})\]\([^()]{0,500}\)"), rf"\1{LINK}"),
    (re.compile(r"https?://[^\s)>|]{1,500}"), LINK),
    (re.compile(r"<br\s{0,3}/?>", re.IGNORECASE), " ; "),
    (re.compile(r"</?[a-zA-Z][^<>]{0,300}>"), " "),
    (re.compile(r"\\(?:rightarrow|to)(?![a-z])|[-=]{1,2}>|[⟶➜➔➡⇒⟹]\N{VARIATION SELECTOR-16}?"), "→"),
    (re.compile(r"\\times(?![a-z])|(?<= )\*(?= )"), "×"),
    (re.compile(r"\\([%$|_*#~\[\]])"), r"\1"),
    (re.compile(r"~~|\*+|`+|(?<!\w)_{1,3}(?=\w)|(?<=\w)_{1,3}(?!\w)"), ""),
    (re.compile(r"[\u00a0\u2000-\u200a\u202f]"), " "),
    (re.compile(r"[\u2212\u2010\u2011]"), "-"),
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence or an item of a list, without markup.

    Attributes:
        text: What a reader sees.
        starts: Where in the text a line of the file begins, with that line's number.
    """

    text: str
    starts: tuple[tuple[int, int], ...]

    def line_at(self, position: int) -> int:
        """The line of the file that a character stands on."""
        return next(line for start, line in reversed(self.starts) if start <= position or start == self.starts[0][0])


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell, with what says what it means.

    Attributes:
        text: What a reader sees.
        heading: The heading of its column.
        label: The first cell of its row; empty in the first column.
    """

    text: str
    heading: str
    label: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table, and its line."""

    cells: tuple[Cell, ...]
    line: int

    @property
    def text(self) -> str:
        """The row on one line."""
        return " | ".join(cell.text for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Table:
    """A table without its heading row, which every cell knows."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """A fenced block; ``line`` is that of its first line of text."""

    text: str
    language: str
    line: int


@dataclass(slots=True)
class Section:
    """A heading and what stands below it, up to the next one.

    Attributes:
        titles: The headings that it stands under, the outermost first; empty before the first heading.
        sentences: In the order of the file.
        tables: In the order of the file.
        codes: In the order of the file.
    """

    titles: tuple[str, ...]
    sentences: list[Sentence] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)

    @property
    def title(self) -> str:
        """All headings above, as one text."""
        return " / ".join(self.titles)


@dataclass(frozen=True, slots=True)
class Report:
    """A report, section by section."""

    sections: tuple[Section, ...]


def read_markdown(text: str) -> Report:
    """Reads a report; any text is Markdown, so nothing is refused."""
    reader = _Reader()
    lines = text.splitlines()
    position = _end_of_front_matter(lines)
    while position < len(lines):
        position = reader.read(lines, position)
    reader.end_paragraph()
    return Report(tuple(reader.sections))


class _Reader:
    def __init__(self) -> None:
        self.sections = [Section(())]
        self._levels: list[int] = []
        self._paragraph: list[tuple[str, int]] = []

    def read(self, lines: Sequence[str], position: int) -> int:
        """Reads what begins at a line; gives the line after it."""
        line = lines[position]
        if (fence := _FENCE.match(line)) is not None:
            return self._code(lines, position, fence)
        if "|" in line and position + 1 < len(lines) and _is_ruler(lines[position + 1]):
            return self._table(lines, position)
        if line.lstrip().startswith("<!--") and "-->" not in line:
            return _end_of_comment(lines, position)
        if (heading := _HEADING.match(line)) is not None:
            self._heading(len(heading[1]), heading[2])
        elif not line.strip() or set(line.strip()) <= set("-=*_ "):
            self.end_paragraph()
        else:
            self._text(line, position + 1)
        return position + 1

    def end_paragraph(self) -> None:
        """Cuts the lines read so far into sentences."""
        if self._paragraph:
            self.sections[-1].sentences.extend(_sentences(self._paragraph))
            self._paragraph = []

    def _text(self, line: str, number: int) -> None:
        if (item := _ITEM.match(line)) is not None:
            self.end_paragraph()
            line = item[1]
        elif unicodedata.category(line.lstrip()[0]) == "So":
            # "✅ done" on lines of their own are a list to its reader.
            self.end_paragraph()
        elif (quoted := _QUOTED.match(line)) is not None:
            line = line[quoted.end() :]
        self._paragraph.extend((clean(part), number) for part in _cut(line.strip()))

    def _heading(self, level: int, title: str) -> None:
        self.end_paragraph()
        while self._levels and self._levels[-1] >= level:
            self._levels.pop()
        above = self.sections[-1].titles[: len(self._levels)]
        self._levels.append(level)
        self.sections.append(Section((*above, clean(title[:_LONGEST].rstrip("# ")))))

    def _code(self, lines: Sequence[str], position: int, fence: re.Match[str]) -> int:
        self.end_paragraph()
        end = position + 1
        while end < len(lines) and not (
            (closing := lines[end].lstrip(" \t>").rstrip()).startswith(fence[1]) and not closing.strip(fence[1][0])
        ):
            end += 1
        self.sections[-1].codes.append(Code("\n".join(lines[position + 1 : end]), fence[2], position + 2))
        return end + 1

    def _table(self, lines: Sequence[str], position: int) -> int:
        self.end_paragraph()
        headings = tuple(clean(cell) for cell in _cells(lines[position]))
        rows = []
        end = position + 2
        while end < len(lines) and "|" in lines[end]:
            texts = [clean(cell) for cell in _cells(lines[end])]
            named = headings + ("",) * (len(texts) - len(headings))
            cells = (Cell(text, named[at], texts[0] if at else "") for at, text in enumerate(texts))
            rows.append(Row(tuple(cells), end + 1))
            end += 1
        self.sections[-1].tables.append(Table(headings, tuple(rows)))
        return end


def clean(text: str) -> str:
    """A text without its markup, as a reader sees it."""
    for pattern, replacement in _STRIPPED:
        text = pattern.sub(replacement, text)
    return html.unescape(text).strip() if "&" in text else text.strip()


def _cells(line: str) -> list[str]:
    bare = line.strip(" \t>")
    bare = bare.removeprefix("|")
    cells = [cell.strip()[:_LONGEST] for cell in _BAR.split(bare, maxsplit=_MOST_CELLS)]
    return cells[:-1] if len(cells) > 1 and not cells[-1] else cells


def _is_ruler(line: str) -> bool:
    return "-" in line and "|" in line and all(_RULER.fullmatch(cell.strip()) for cell in _cells(line))


def _end_of_front_matter(lines: Sequence[str]) -> int:
    """The line after a YAML header such as model cards have; it is settings, not text."""
    if lines and lines[0].strip() == "---":
        for position, line in enumerate(lines[1:200], 1):
            if line.strip() == "---":
                return position + 1
    return 0


def _end_of_comment(lines: Sequence[str], position: int) -> int:
    """The line after a comment; one that is never closed hides all that follows, as it does from a reader."""
    return next((end + 1 for end in range(position, len(lines)) if "-->" in lines[end]), len(lines))


def _cut(line: str) -> Iterator[str]:
    for start in range(0, len(line), _LONGEST):
        yield line[start : start + _LONGEST]


def _sentences(paragraph: Sequence[tuple[str, int]]) -> Iterator[Sentence]:
    """Joins lines, and cuts at ends of sentences and where a piece would be too long."""
    pieces: list[tuple[str, int]] = []
    for line, number in paragraph:
        start = 0
        for end in _SENTENCE_END.finditer(line):
            if not _ABBREVIATION.search(line[max(start, end.start() - 12) : end.start()]):
                pieces.append((line[start : end.start()], number))
                yield from _joined(pieces)
                pieces, start = [], end.end()
        pieces.append((line[start:], number))
        # A sentence may end where its line ends.
        whole = sum(len(piece) for piece, _ in pieces)
        if whole > _LONGEST or (line.endswith((".", "!", "?")) and not _ABBREVIATION.search(line[-12:])):
            yield from _joined(pieces)
            pieces = []
    yield from _joined(pieces)


def _joined(pieces: Sequence[tuple[str, int]]) -> Iterator[Sentence]:
    starts, text = [], ""
    for piece, number in pieces:
        if piece.strip():
            text = f"{text} {piece}" if text else piece
            starts.append((len(text) - len(piece), number))
    if starts:
        yield Sentence(text, tuple(starts))
