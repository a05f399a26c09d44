"""From the data section of an experiment to its three parts."""

from pathlib import Path

from whetstone.data.grammar.examples import correction_splits, instruction_splits
from whetstone.data.sources import read_jsonl_source, read_parallel_source
from whetstone.data.split import Splits, split_by_group
from whetstone.data_section import Data, GrammarSource, ParallelSource

__all__ = ["load_splits"]


def load_splits(data: Data) -> Splits:
    """Reads or generates the examples and divides them.

    The embedded corpus brings its own split, by sentence frame and vocabulary group; files are split by group.

    Raises:
        UserError: The source cannot be read, a row is malformed, or there are too few groups.
    """
    source = data.source
    if isinstance(source, GrammarSource):
        make = correction_splits if source.grammar == "corrections" else instruction_splits
        return make(data, source)
    if isinstance(source, ParallelSource):
        return split_by_group(read_parallel_source(data, source), data.split)
    return split_by_group(read_jsonl_source(data, Path(source)), data.split)
