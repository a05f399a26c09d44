"""``whet data``: look at examples, divide them, convert them, and make more of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from whetstone.cli.common import JsonOption, print_json, report_skipped, status
from whetstone.cli.data_from_feedback import from_feedback
from whetstone.data.export import ExportFormat, ReferenceChoice
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.data.augment import Augmented, Planting
    from whetstone.data.example import Example
    from whetstone.data.sources import SourceSummary
    from whetstone.data_section import Data

__all__ = ["data"]

BadRow = Literal["stop", "skip"]

SourceArgument = Annotated[
    str, typer.Argument(help="A file, a folder, a hub id (owner/name), or an experiment (.yaml), whose data are used.")
]
FormatOption = Annotated[ExportFormat | None, typer.Option("--format", help="The shape of the rows; else it is found.")]
PromptOption = Annotated[
    str | None, typer.Option("--prompt", help="The user's turn for rows that bring none; {source} is the text.")
]
GroupOption = Annotated[str | None, typer.Option("--group", help="The field that names what a row was made from.")]
CategoryOption = Annotated[str | None, typer.Option("--category", help="The field that names the kind of a row.")]
BadRowOption = Annotated[BadRow | None, typer.Option("--on-bad-row", help="What a malformed row does.")]
PartOption = Annotated[str | None, typer.Option("--part", help="Which part of a source that has train, test, ...")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same examples.", min=0)]

_TEXTS_SHOWN = 5

data = typer.Typer(
    name="data",
    help="Look at examples, divide them, convert them, and make more of them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@data.command()
def preview(
    source: SourceArgument,
    count: Annotated[int, typer.Option("-n", "--count", help="How many examples to show.", min=0)] = 3,
    format_: FormatOption = None,
    prompt: PromptOption = None,
    group: GroupOption = None,
    category: CategoryOption = None,
    on_bad_row: BadRowOption = "skip",
    as_json: JsonOption = False,
) -> None:
    """Show which format was found, and the first examples as they would be learned.

    Example: whet data preview corrections.jsonl -n 5
    """
    from rich.console import Console

    from whetstone.cli.data_view import example_panel, source_line

    read = _read(source, _Options(format_, prompt, group, category, on_bad_row))
    shown = [example for examples in read.parts.values() for example in examples][:count]
    if as_json:
        print_json({**read.as_row(), "examples": [example.as_row() for example in shown]})
        return
    console = Console(highlight=False)
    for summary in read.sources:
        console.print(source_line(summary))
    for example in shown:
        console.print(example_panel(example))


@data.command()
def stats(
    source: SourceArgument,
    format_: FormatOption = None,
    prompt: PromptOption = None,
    group: GroupOption = None,
    category: CategoryOption = None,
    on_bad_row: BadRowOption = "skip",
    as_json: JsonOption = False,
) -> None:
    """Count examples, groups and categories, and measure how long the texts are.

    Example: whet data stats corrections.jsonl --category error
    """
    from rich.console import Console

    from whetstone.cli.data_view import print_statistics, source_line
    from whetstone.data.statistics import describe

    read = _read(source, _Options(format_, prompt, group, category, on_bad_row))
    described = {name: describe(examples) for name, examples in read.parts.items() if examples}
    if as_json:
        print_json({**read.as_row(), "statistics": {name: one.as_row() for name, one in described.items()}})
        return
    console = Console(highlight=False)
    for summary in read.sources:
        console.print(source_line(summary))
    for name, statistics in described.items():
        print_statistics(console, name, statistics)


@data.command()
def split(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", help="The folder to make; it must not exist, or be empty.")],
    validation: Annotated[float | None, typer.Option(help="Share or number of groups; else 0.05.", min=0)] = None,
    test: Annotated[float | None, typer.Option(help="Share or number of groups; else 0.2.", min=0)] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same parts; else 0.", min=0)] = None,
    format_: FormatOption = None,
    prompt: PromptOption = None,
    group: GroupOption = None,
    category: CategoryOption = None,
    on_bad_row: BadRowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Divide examples into training, validation and test files, whole groups at a time.

    Example: whet data split corrections.jsonl --out parts --test 0.1
    """
    from rich.console import Console

    from whetstone.cli.data_view import print_parts, source_lines_to_paste
    from whetstone.data.export import fitting_format, write_examples
    from whetstone.data.split import split_by_group
    from whetstone.files import atomic_folder

    if _exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} exists already and is not empty; give another folder")
    if test == 0:
        raise UserError("--test: 0 leaves nothing to judge with; give a share or a number of groups")
    read = _read(source, _Options(format_, prompt, group, category, on_bad_row, whole_rows=True))
    examples = read.only_part(None, "split one of its files")
    asked = {"validation": validation, "test": test, "seed": seed}
    settings = read.data.split.model_copy(update={name: value for name, value in asked.items() if value is not None})
    divided = split_by_group(examples, settings)
    parts = {"train": divided.train, "validation": divided.validation, "test": divided.test}
    parts = {name: part for name, part in parts.items() if part}
    shape = fitting_format(examples)
    with atomic_folder(out) as folder:
        for name, part in parts.items():
            write_examples(folder / f"{name}.jsonl", part, shape)
    paths = {name: str(out / f"{name}.jsonl") for name in parts}
    if as_json:
        print_json({"written": paths, "format": shape, "parts": {name: _counts(part) for name, part in parts.items()}})
        return
    console = Console(highlight=False)
    print_parts(console, parts)
    console.print(source_lines_to_paste(paths), soft_wrap=True, markup=False)


@data.command()
def convert(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The file to write: .jsonl, .json, .csv, .tsv, .parquet, .jsonl.gz, ...")],
    to: Annotated[ExportFormat, typer.Option("--to", help="The shape of the rows to write.")],
    references: Annotated[ReferenceChoice, typer.Option(help="Write every reference, or the first one.")] = "all",
    part: PartOption = None,
    format_: FormatOption = None,
    prompt: PromptOption = None,
    group: GroupOption = None,
    category: CategoryOption = None,
    on_bad_row: BadRowOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write examples in another format; ids, groups and categories are kept.

    Example: whet data convert corrections.jsonl corrections.parquet --to messages
    """
    from whetstone.data.export import write_examples

    _check_out(out, force)
    read = _read(source, _Options(format_, prompt, group, category, on_bad_row, whole_rows=True))
    examples = read.only_part(part, "name one with --part")
    rows = write_examples(out, examples, to, references)
    _report_written(out, to, rows, as_json)


@data.command()
def augment(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The file to write: .jsonl, .json, .csv, .tsv, .parquet, .jsonl.gz, ...")],
    errors: Annotated[
        str | None, typer.Option("--errors", help="Plant so many learner errors in clean text: 2, or 1..3.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="Ask in other words: a file with a prompt a line, or 'builtin'.")
    ] = None,
    clean: Annotated[
        Literal["text", "references"],
        typer.Option("--from", help="Where clean text stands: plain text, or the first reference of pairs."),
    ] = "text",
    copies: Annotated[int, typer.Option(help="How many new examples to make of each.", min=1)] = 1,
    keep_clean: Annotated[float, typer.Option(help="The share of texts left without an error.", min=0, max=1)] = 0.1,
    seed: SeedOption = 0,
    to: Annotated[ExportFormat | None, typer.Option("--to", help="The shape of the rows to write.")] = None,
    part: PartOption = None,
    format_: FormatOption = None,
    prompt: PromptOption = None,
    group: GroupOption = None,
    on_bad_row: BadRowOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make more examples: learner errors planted in clean text, or the same questions in other words.

    OUT holds the new examples alone; each keeps the group of its original. Of a source with parts, only the training
    part is used.

    Example: whet data augment clean.txt pairs.jsonl --errors 1..3 --copies 2
    """
    from whetstone.data.augment import Planting, swap_prompts
    from whetstone.data.export import fitting_format, write_examples

    if (errors is None) == (prompts is None):
        raise UserError("give exactly one of --errors (plant learner errors) and --prompts (ask in other words)")
    _check_out(out, force)
    read = _read(source, _Options(format_, prompt, group, None, on_bad_row, whole_rows=True))
    examples = read.only_part(part or ("train" if "train" in read.parts else None), "name one with --part")
    if errors is not None:
        bounds = _bounds(errors)
        planting = Planting(copies, bounds, keep_clean, seed, read.data.prompt, read.data.system)
        made = _planted(examples, planting, clean).examples
    else:
        made = swap_prompts(examples, _prompts(prompts or ""), copies, seed)
    if not made:
        raise UserError(f"{source}: no text in it admits {errors} errors; ask for fewer")
    shape = to or fitting_format(made)
    rows = write_examples(out, made, shape)
    _report_written(out, shape, rows, as_json)


data.command()(from_feedback)


@dataclass(frozen=True, slots=True)
class _Options:
    """How a source is read; None leaves it to the experiment, or to the defaults.

    ``whole_rows`` makes one example of a conversation, not one of each answer: what is written must read back as
    what was read.
    """

    format: ExportFormat | None
    prompt: str | None
    group: str | None
    category: str | None
    on_bad_row: BadRow | None
    whole_rows: bool = False

    def given(self) -> dict[str, Any]:
        """The keys of the data section that are overruled."""
        names = ("format", "prompt", "group", "category", "on_bad_row")
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {**values, "turns": "last"} if self.whole_rows else values


@dataclass(frozen=True, slots=True)
class _Read:
    """The examples of every part, and what was read to get them."""

    data: "Data"
    parts: dict[str, "tuple[Example, ...]"]
    sources: "tuple[SourceSummary, ...]"

    def only_part(self, name: str | None, mend: str) -> "tuple[Example, ...]":
        """The examples of one part; of the only one where none is named."""
        known = ", ".join(self.parts)
        if name is None and len(self.parts) > 1:
            raise UserError(f"the source has parts of its own ({known}); {mend}")
        if name is not None and name not in self.parts:
            raise UserError(f"--part: there is no '{name}' (there: {known}); name one of these")
        return next(iter(self.parts.values())) if name is None else self.parts[name]

    def as_row(self) -> dict[str, Any]:
        """What was read, for ``--json``."""
        from dataclasses import asdict

        parts = {name: len(examples) for name, examples in self.parts.items()}
        return {"sources": [asdict(summary) for summary in self.sources], "parts": parts}


def _read(source: str, options: _Options) -> _Read:
    """Reads a source and says on standard error which rows were left out."""
    from whetstone.data.load import load_data
    from whetstone.data.sources import read_parts
    from whetstone.data_section import Data, FilesSource, GrammarSource
    from whetstone.experiment import load_experiment

    if options.prompt is not None and "{source}" not in options.prompt:
        raise UserError("--prompt: does not say where the text goes; add {source}")
    path = Path(source)
    section = load_experiment(path).data if path.suffix in (".yaml", ".yml") else Data(source=source)
    section = section.model_copy(update=options.given())
    if isinstance(section.source, GrammarSource | FilesSource):
        loaded = load_data(section)
        splits = loaded.splits
        named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        read = _Read(section, {name: part for name, part in named.items() if part}, loaded.sources)
    else:
        found = read_parts(section, section.source)
        parts = {name: found[name] for name in ("all", "train", "validation", "test") if name in found}
        summaries = tuple(part.summary for part in parts.values())
        read = _Read(section, {name: part.examples for name, part in parts.items()}, summaries)
    report_skipped(read.sources)
    return read


def _check_out(out: Path, force: bool) -> None:
    """Says what is wrong with the file to write before anything is read."""
    from whetstone.data.export import check_file_name

    check_file_name(out)
    if _exists(out) and not force:
        raise UserError(f"{out}: exists already; give another name, or --force to replace it")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another name") from None


def _report_written(out: Path, shape: ExportFormat, rows: int, as_json: bool) -> None:
    if as_json:
        print_json({"written": str(out), "format": shape, "rows": rows})
    else:
        status.print(f"{out}: {rows:,} rows written, format {shape}", markup=False, soft_wrap=True)


def _counts(examples: "Sequence[Example]") -> dict[str, Any]:
    from collections import Counter

    categories = dict(Counter(example.category for example in examples))
    groups = len({example.group for example in examples})
    return {"rows": len(examples), "groups": groups, "categories": categories}


def _bounds(errors: str) -> tuple[int, int]:
    """Reads ``2`` or ``1..3``."""
    least, dots, most = errors.partition("..")
    if not (least.isdecimal() and (most.isdecimal() if dots else True)):
        raise UserError(f"--errors: '{errors}' is no number of errors; give one (2) or two (1..3)")
    bounds = int(least), int(most or least)
    if not 1 <= bounds[0] <= bounds[1]:
        raise UserError(f"--errors: '{errors}' must rise from 1 or more; --keep-clean leaves texts without an error")
    return bounds


def _planted(examples: "Sequence[Example]", planting: "Planting", clean: str) -> "Augmented":
    from whetstone.data.augment import plant_errors

    pairs = [example for example in examples if example.messages]
    if clean == "text" and pairs:
        raise UserError(
            f"example '{pairs[0].id}': is a pair, not clean text; add --from references to take its first reference"
        )
    augmented = plant_errors(examples, planting)
    if augmented.barren:
        shown = ", ".join(augmented.barren[:_TEXTS_SHOWN])
        status.print(
            f"{len(augmented.barren):,} of {len(examples):,} texts admit no such error and were left out: {shown}",
            markup=False,
            soft_wrap=True,
        )
    return augmented


def _prompts(name: str) -> Sequence[str]:
    r"""The templates in a file, one a line (``\n`` stands for a line break), or the built-in ones."""
    from whetstone.data.augment import CORRECTION_PROMPTS

    if name == "builtin":
        return CORRECTION_PROMPTS
    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts: {name} cannot be read as text ({error}); give a file, or 'builtin'") from None
    prompts = [line.strip().replace("\\n", "\n") for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"--prompts: {name} is empty; give a prompt a line")
    return prompts
