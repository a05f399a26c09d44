"""From the data section of an experiment to its three parts, and to the examples that are replayed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whetstone.data.example import Example
from whetstone.data.grammar.examples import correction_splits, instruction_splits
from whetstone.data.sources import Loaded, SourceSummary, read_parts
from whetstone.data.split import Splits, split_by_group
from whetstone.data_section import Data, FilesSource, GrammarSource
from whetstone.errors import UserError

__all__ = ["LoadedData", "load_data", "load_replay", "load_splits"]


@dataclass(frozen=True, slots=True)
class LoadedData:
    """The parts of a data set, and what was read to get them."""

    splits: Splits
    sources: tuple[SourceSummary, ...]


def load_splits(data: Data) -> Splits:
    """The three parts of a data set; see :func:`load_data`."""
    return load_data(data).splits


def load_data(data: Data) -> LoadedData:
    """Reads or generates the examples and divides them.

    The embedded corpus brings its own split, by sentence frame and vocabulary group; so do ``{train, test}`` files and
    folders with files of these names. Everything else is split by group.

    Raises:
        UserError: The source cannot be read, a row is malformed, or there are too few groups.
    """
    source = data.source
    if isinstance(source, GrammarSource):
        splits = _generate(data, source)
        return LoadedData(splits, (_generated_summary(source, sum(splits.counts().values())),))
    if isinstance(source, FilesSource):
        asked = {"train": source.train, "validation": source.validation, "test": source.test}
        return _fixed({name: _whole(read_parts(data, part), name) for name, part in asked.items() if part is not None})
    parts = read_parts(data, source)
    if len(parts) > 1:
        return _fixed(parts)
    (loaded,) = parts.values()
    return LoadedData(split_by_group(loaded.examples, data.split), (loaded.summary,))


def load_replay(data: Data) -> Loaded | None:
    """The examples that ``data.replay`` mixes into training; None without it.

    Of a source with parts only its training part is replayed, so that its test part can still judge.

    Raises:
        UserError: The source cannot be read, or a row is malformed.
    """
    if data.replay is None:
        return None
    source = data.replay.source
    # Prompt, system turn and the names of fields are the task's; replayed rows are asked as they stand.
    own = {"format": data.replay.format, "prompt": "{source}", "system": None, "group": "group", "category": "category"}
    plain = data.model_copy(update=own)
    if isinstance(source, GrammarSource):
        examples = _generate(plain, source).train
        return Loaded(examples, _generated_summary(source, len(examples)))
    if isinstance(source, FilesSource):
        source = source.train
    parts = read_parts(plain, source)
    return parts.get("train", next(iter(parts.values())))


def _generate(data: Data, source: GrammarSource) -> Splits:
    make = correction_splits if source.grammar == "corrections" else instruction_splits
    return make(data, source)


def _generated_summary(source: GrammarSource, count: int) -> SourceSummary:
    return SourceSummary(f"embedded corpus ({source.grammar})", "grammar", rows=count, examples=count, skipped=())


def _whole(parts: Mapping[str, Loaded], name: str) -> Loaded:
    if len(parts) > 1:
        raise UserError(
            f"data.source.{name}: holds {', '.join(parts)} of its own; name one of its files, or give the folder as "
            "data.source"
        )
    return next(iter(parts.values()))


def _fixed(parts: Mapping[str, Loaded]) -> LoadedData:
    """A split that somebody else made; it is taken as it is, and ``whet check`` looks for leaks."""
    missing = [name for name in ("train", "test") if name not in parts]
    if missing:
        raise UserError(
            f"data.source: holds {' and '.join(parts)}, but no {missing[0]}; name the files: "
            "source: {train: ..., validation: ..., test: ...}"
        )

    def examples(name: str) -> Sequence[Example]:
        return parts[name].examples if name in parts else ()

    splits = Splits(tuple(examples("train")), tuple(examples("validation")), tuple(examples("test")))
    return LoadedData(splits, tuple(loaded.summary for loaded in parts.values()))
