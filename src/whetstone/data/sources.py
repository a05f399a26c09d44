"""Where examples come from: files, folders, the hub, a catalogue, and line-aligned text files.

Ids and groups are made from content, never from position, so that reordering a file changes nothing.
"""

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whetstone.data.catalogue import read_listing
from whetstone.data.example import Example, Message
from whetstone.data.finding import excerpt
from whetstone.data.formats import LAYOUTS, Draft, Layout, Parser, format_of
from whetstone.data.hub import HubPlace, folder_parts, hub_parts
from whetstone.data.rows import RawRow, lines, read_rows
from whetstone.data.strict_json import RowError
from whetstone.data_section import CatalogueSource, Data, Format, ParallelSource
from whetstone.errors import UserError
from whetstone.section import stable_hash
from whetstone.source_name import is_hub_name

__all__ = ["Loaded", "SkippedRow", "SourceSummary", "ask", "read_parts"]

_ROWS_TO_DETECT = 10
_PARALLEL = replace(LAYOUTS["prompt-references"], format="parallel")


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row that was left out: where it stands, and what is wrong with it."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """What was read.

    Attributes:
        name: The source, as the experiment names it.
        format: The shape of its rows, as declared or detected.
        rows: How many there are, bad ones among them.
        examples: How many were made of them; a conversation may give several.
        skipped: The bad ones, in the order of the file.
        unused: The fields of its first rows that nothing looks at.
    """

    name: str
    format: Format
    rows: int
    examples: int
    skipped: tuple[SkippedRow, ...]
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """The examples of one part, and what was read to get them."""

    examples: tuple[Example, ...]
    summary: SourceSummary


def ask(data: Data, source: str) -> tuple[Message, ...]:
    """The prompt for a bare source text: the system turn, if any, and the user turn."""
    turns = [Message("system", data.system)] if data.system is not None else []
    return (*turns, Message("user", data.prompt.replace("{source}", source)))


def read_parts(data: Data, source: str | ParallelSource | CatalogueSource) -> dict[str, Loaded]:
    """Reads a file, a folder, a data set on the hub, an entry of a catalogue, or line-aligned files.

    Args:
        data: How rows are read; its own ``source`` is not looked at.
        source: A path, a hub id (``owner/name``, where there is no such path), or one of the sections.

    Returns:
        ``all``; or ``train``, ``validation`` and ``test``, as far as a folder or a hub data set has them.

    Raises:
        UserError: It cannot be read, its format is not clear, no row can be used, no row has a field that the
            experiment names, or a row is malformed and ``data.on_bad_row`` is ``stop``.
    """
    if isinstance(source, ParallelSource):
        return _load_all(data, source.src, {"all": _parallel_rows(source)}, _PARALLEL)
    if isinstance(source, CatalogueSource):
        listing = read_listing(source)
        _agree(data, source, listing.layout)
        name = f"{source.dataset_info}: {source.name}"
        parts = _parts(listing.place)
        limited = {part: itertools.islice(rows, listing.num_samples) for part, rows in parts.items()}
        return _load_all(data, name, limited, listing.layout)
    layout = None if data.format == "auto" else LAYOUTS[data.format]
    return _load_all(data, source, _parts(_place(source)), layout)


def _load_all(data: Data, name: str, parts: Mapping[str, Iterable[RawRow]], layout: Layout | None) -> dict[str, Loaded]:
    wanted = _Wanted(data)
    loaded = {
        part: _load(data, name if part == "all" else f"{name} ({part})", _seen(rows, wanted), layout)
        for part, rows in parts.items()
    }
    wanted.check(name)
    return loaded


def _place(source: str) -> Path | HubPlace:
    path = Path(source)
    return HubPlace(source) if is_hub_name(source) and not _exists(path) else path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read ({reason}); give a path or a hub id") from None


def _parts(place: Path | HubPlace) -> dict[str, Iterator[RawRow]]:
    if isinstance(place, HubPlace):
        return hub_parts(place)
    if not _exists(place):
        raise UserError(f"{place}: no such file or folder; give a path, or a hub id as owner/name")
    if place.is_dir():
        parts = folder_parts(place)
        return {name: itertools.chain.from_iterable(map(read_rows, paths)) for name, paths in parts.items()}
    return {"all": read_rows(place)}


def _agree(data: Data, source: CatalogueSource, layout: Layout) -> None:
    if data.format not in ("auto", layout.format):
        raise UserError(
            f"data.format: '{data.format}', but {source.dataset_info} says that '{source.name}' is {layout.format}; "
            f"delete data.format"
        )


def _load(data: Data, name: str, rows: Iterable[RawRow], layout: Layout | None) -> Loaded:
    """Makes examples of rows; ``layout`` None means that the rows are to tell."""
    stream = iter(rows)
    if layout is None:
        layout, stream = _detected(name, stream)
    parse, identify = Parser(data, layout), _Identifier()
    fields: dict[str, None] = {}
    examples: list[Example] = []
    skipped: list[SkippedRow] = []
    count = 0
    for count, (where, row) in enumerate(stream, 1):
        if count <= _ROWS_TO_DETECT and not isinstance(row, RowError):
            fields |= dict.fromkeys(row)
        try:
            examples += _examples(parse, identify, row)
        except RowError as error:
            if data.on_bad_row == "stop":
                raise UserError(f"{where}: {error}") from None
            skipped.append(SkippedRow(where, str(error)))
    if count == 0:
        raise UserError(f"{name}: no rows; give at least one example")
    if not examples:
        first = skipped[0]
        raise UserError(f"{name}: none of the {count} rows can be used; {first.where}: {first.reason}")
    used = {*layout.read(), "id", data.group, data.category}
    unused = tuple(field for field in fields if field not in used)
    return Loaded(tuple(examples), SourceSummary(name, layout.format, count, len(examples), tuple(skipped), unused))


class _Wanted:
    """The fields that an experiment names: a misspelt one would go unseen, since rows need not have them."""

    def __init__(self, data: Data) -> None:
        named = {"group": data.group, "category": data.category}
        self._absent = {key: field for key, field in named.items() if field != key}
        self._fields: dict[str, None] = {}

    def see(self, row: dict[str, Any] | RowError) -> None:
        """Strikes out what a row has."""
        if self._absent and not isinstance(row, RowError):
            self._fields |= dict.fromkeys(row)
            self._absent = {key: field for key, field in self._absent.items() if field not in row}

    def check(self, name: str) -> None:
        """Raises UserError where no row has a field that the experiment names."""
        for key, field in self._absent.items():
            near = difflib.get_close_matches(field, self._fields, n=1)
            mend = f"did you mean '{excerpt(near[0])}'?" if near else "name one of these"
            raise UserError(
                f"{name}: no row has the field '{excerpt(field)}' that data.{key} (--{key}) names; "
                f"there are {excerpt(', '.join(self._fields), 200)}; {mend}"
            )


def _seen(rows: Iterable[RawRow], wanted: _Wanted) -> Iterator[RawRow]:
    """The rows as they come, looked at for the fields that are wanted."""
    for where, row in rows:
        wanted.see(row)
        yield where, row


def _examples(parse: Parser, identify: "_Identifier", row: dict[str, Any] | RowError) -> list[Example]:
    if isinstance(row, RowError):
        raise row
    draft = parse(row)
    examples = [
        Example(name, answer.messages, answer.references, answer.source, draft.group, draft.category)
        for name, answer in zip(identify(draft), draft.answers, strict=True)
    ]
    if draft.rejected or draft.tests is not None:
        examples[-1] = replace(examples[-1], rejected=draft.rejected, tests=draft.tests)
    return examples


def _detected(name: str, rows: Iterator[RawRow]) -> tuple[Layout, Iterator[RawRow]]:
    """The layout that the first good rows have, and all rows again."""
    seen: list[RawRow] = []
    found: list[tuple[str, Format]] = []
    good = 0
    unknown = ""
    for where, row in rows:
        seen.append((where, row))
        if isinstance(row, RowError):
            continue
        good += 1
        shape = format_of(row)
        if shape is not None:
            found.append((where, shape))
        else:
            unknown = unknown or f"{where}: expected the fields of a format, found {excerpt(', '.join(row)) or 'none'}"
        if good == _ROWS_TO_DETECT:
            break
    if not seen:
        raise UserError(f"{name}: no rows; give at least one example")
    if not good:
        raise UserError(f"{seen[0][0]}: {seen[0][1]}")
    if not found:
        known = "; ".join(" and ".join(layout.required()) for layout in LAYOUTS.values())
        raise UserError(f"{unknown}; rename them to one of: {known}")
    first_where, first = found[0]
    for where, shape in found:
        if shape != first:
            raise UserError(f"{where}: a {shape} row, but {first_where} is {first}; set data.format or make them alike")
    return LAYOUTS[first], itertools.chain(seen, rows)


def _parallel_rows(source: ParallelSource) -> Iterator[RawRow]:
    """Line i of ``src`` as the prompt, its lines in ``refs`` as the references; blank and equal ones are left out.

    Raises:
        UserError: A file cannot be read, is empty, or differs in length.
    """
    columns: list[list[str | RowError]] = []
    for name in (source.src, *source.refs):
        column = [line if isinstance(line, RowError) else line.strip() for line in lines(Path(name))]
        if not column:
            raise UserError(f"{name}: empty; give one sentence a line")
        if columns and len(column) != len(columns[0]):
            raise UserError(
                f"{name}: {len(column)} lines, but {source.src} has {len(columns[0])}; line i must correct line i"
            )
        columns.append(column)
    for number, texts in enumerate(zip(*columns, strict=True), 1):
        yield f"{source.src}:{number}", _aligned(source, texts)


def _aligned(source: ParallelSource, texts: tuple[str | RowError, ...]) -> dict[str, Any] | RowError:
    for name, text in zip((source.src, *source.refs), texts, strict=True):
        if isinstance(text, RowError):
            return text if name == source.src else RowError(f"{name}: {text}")
    prompt, *answers = texts
    if not prompt:
        return RowError("expected a sentence, found a blank line; delete it here and in every refs file")
    references = [answer for answer in answers if answer]
    if not references:
        return RowError("expected a text on this line of a refs file, found none; delete it everywhere or correct it")
    return {"prompt": prompt, "references": references}


class _Identifier:
    """Names examples: as their row does, else by content; the second of two equal rows gets a suffix."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._repeats: dict[str, int] = {}

    def __call__(self, draft: Draft) -> list[str]:
        """The names of a draft's answers: the first is the row's, later ones add ``#2``, ``#3``.

        Raises:
            RowError: The row brings a name that an earlier one has.
        """
        count = len(draft.answers)
        names = _numbered(draft.id or _name(draft), count)
        stem = names[0]
        while not self._seen.isdisjoint(names):
            if draft.id:
                raise RowError(f"id: '{excerpt(draft.id)}' was given to an earlier row; ids must be unique")
            self._repeats[stem] = self._repeats.get(stem, 1) + 1
            names = _numbered(f"{stem}-{self._repeats[stem]}", count)
        self._seen.update(names)
        return names


def _numbered(base: str, count: int) -> list[str]:
    return [base, *(f"{base}#{number}" for number in range(2, count + 1))]


def _name(draft: Draft) -> str:
    """A hash of all that the row says, so that only rows that are equal are named by their order."""
    return stable_hash(draft.content)[:12]
