"""The ``data`` section of an experiment: which examples, in which format, how divided, how checked, how mixed."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from whetstone.section import Count, KeyedError, Section, Seed

__all__ = [
    "CatalogueSource",
    "Data",
    "FilesSource",
    "FindingCode",
    "Format",
    "GrammarSource",
    "Lint",
    "ParallelSource",
    "Replay",
    "RowFormat",
    "Source",
    "Split",
]

RowFormat = Literal[
    "messages",
    "sharegpt",
    "alpaca",
    "prompt-completion",
    "prompt-response",
    "prompt-references",
    "text",
    "preference",
    "mbpp",
    "humaneval",
]
"""The shape of a row."""

Format = Literal[RowFormat, "parallel", "grammar"]
"""The shape of a source; ``parallel`` (line-aligned files) and ``grammar`` (the embedded corpus) have no rows."""

FindingCode = Literal[
    "held-out-source-in-training",
    "held-out-pair-in-training",
    "near-duplicate-across-splits",
    "exact-duplicate",
    "near-duplicate",
    "identity-pair",
    "empty-turn",
    "role-order",
    "mojibake",
    "control-character",
    "contradictory-references",
    "label-imbalance",
    "length-outlier",
    "personal-data",
    "secret",
    "small-test",
    "skipped-row",
    "nothing-to-judge",
    "too-long",
    "answer-limit",
    "context",
    "mask-empty",
    "mask-wrong",
    "end-of-turn-not-learned",
    "end-of-turn-does-not-stop",
    "start-doubled",
    "stages-differ",
    "text-changed",
    "special-token-in-text",
    "unknown-token",
    "memory",
]
"""Every fault that ``whet check`` looks for; docs/checks.md explains each."""


class ParallelSource(Section):
    """Two or more text files with one sentence a line: line i of every ``refs`` file corrects line i of ``src``."""

    src: str
    refs: Annotated[tuple[str, ...], Field(min_length=1)]


class GrammarSource(Section):
    """The embedded grammar-correction corpus, generated from a seed and split by frame and vocabulary group."""

    grammar: Literal["corrections", "instructions"]
    """``corrections``: learner sentences. ``instructions``: clean writing, copying and formatting, no correction."""
    train: Count = 6000
    validation: Count = 200
    test: Count = 400
    seed: Seed = 0


class CatalogueSource(Section):
    """One entry of a ``dataset_info.json``, the catalogue that LLaMA-Factory keeps its data sets in."""

    dataset_info: str
    name: str


class FilesSource(Section):
    """A split that is fixed already, a source for each part; the parts are taken as they are, and checked."""

    train: str | ParallelSource
    validation: str | ParallelSource | None = None
    test: str | ParallelSource


def _source_kind(value: Any) -> str:
    """Names the member of the union by what was given; the brackets keep tags apart from keys in error locations."""
    if isinstance(value, str):
        return "<path>"
    if isinstance(value, dict):
        for key, kind in (("grammar", "<grammar>"), ("dataset_info", "<catalogue>"), ("test", "<files>")):
            if key in value:
                return kind
        return "<files>" if "train" in value else "<parallel>"
    for section, kind in ((GrammarSource, "<grammar>"), (CatalogueSource, "<catalogue>"), (FilesSource, "<files>")):
        if isinstance(value, section):
            return kind
    return "<parallel>" if isinstance(value, ParallelSource) else "<path>"


Source = Annotated[
    Annotated[str, Tag("<path>")]
    | Annotated[ParallelSource, Tag("<parallel>")]
    | Annotated[GrammarSource, Tag("<grammar>")]
    | Annotated[CatalogueSource, Tag("<catalogue>")]
    | Annotated[FilesSource, Tag("<files>")],
    Discriminator(_source_kind),
]
"""A file, a folder or a hub id; or one of the sections above."""


class Split(Section):
    """How many groups go where; a count, or a share of all groups. Training takes what is left unless it is given."""

    train: Count | None = None
    validation: Annotated[float, Field(ge=0)] = 0.05
    test: Annotated[float, Field(gt=0)] = 0.2
    seed: Seed = 0


class Lint(Section):
    """How strictly the examples are checked before a token is trained."""

    near_duplicates: bool = True
    """Search for texts that are nearly the same (MinHash, then the exact Jaccard similarity)."""
    jaccard: Annotated[float, Field(ge=0.3, lt=1)] = 0.8
    """From which Jaccard similarity of their character 5-grams two texts count as nearly the same; 5-grams that more
    than a tenth of all texts have, as in a shared instruction, do not count."""
    allow: tuple[FindingCode, ...] = ()
    """Errors that do not stop training, each a decision that is recorded with the run."""


class Replay(Section):
    """General examples mixed into training, so that the model keeps what it could do (experience replay)."""

    source: Source
    fraction: Annotated[float, Field(gt=0, lt=1)]
    """The share of all loss tokens that comes from replayed examples."""
    format: Literal["auto", RowFormat] = "auto"


def _none_if_blank(text: str | None) -> str | None:
    return text if text and text.strip() else None


class Data(Section):
    """Which examples, how they are asked, and how they are divided."""

    source: Source
    format: Literal["auto", RowFormat] = "auto"
    """The shape of the rows; ``auto`` looks at the first of them and says what it found."""
    group: str = "group"
    """The field that names what a row was made from (a document, a sentence); rows of one group stay together."""
    category: str = "category"
    """The field that names the kind of a row; each split gets its share of every kind."""
    turns: Literal["all", "last"] = "all"
    """Learn and judge every answer of a conversation (each becomes an example), or only the last one."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What a malformed row does: stop, or be left out, counted and listed."""
    prompt: str = "{source}"
    """The user turn; ``{source}`` stands for the sentence. Ignored for rows that bring their own messages."""
    system: Annotated[str | None, AfterValidator(_none_if_blank)] = None
    """The system turn of rows that bring none; a blank one is none."""
    split: Split = Split()
    max_tokens: Count = 512
    """The longest training sequence, prompt and answer together."""
    too_long: Literal["raise", "drop", "truncate"] = "raise"
    """What a longer one does: stop, be left out, or lose the end of its answer (and then its end is not learned)."""
    lint: Lint = Lint()
    replay: Replay | None = None

    @model_validator(mode="after")
    def _prompt_holds_source(self) -> "Data":
        if "{source}" not in self.prompt:
            raise KeyedError("prompt", "must contain '{source}', the place where the sentence goes")
        return self
