"""What the name of a source says: a data file, or a data set on the Hugging Face hub."""

import re
from pathlib import Path

__all__ = ["COMPRESSIONS", "SUFFIXES", "data_suffix", "is_hub_name"]

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
"""The kinds of files that hold rows."""

COMPRESSIONS = (".gz", ".zst")
"""What may follow them."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w-]*/\w[\w.-]*", re.ASCII)


def data_suffix(path: Path) -> str:
    """The suffix that says what a file holds, in lower case and without a compression's; "" where it is not one."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else ""


def is_hub_name(text: str) -> bool:
    """Whether a text is ``owner/name`` and not the name of a data file; an owner on the hub has no dot in it."""
    return _HUB_NAME.fullmatch(text) is not None and not text.lower().endswith((*SUFFIXES, *COMPRESSIONS))
