"""The numbers of the denied calls, against the headers of the kernel."""

import re
from pathlib import Path

import pytest

from whetstone.jail.privileges import CALLS

HEADERS = (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h"))


@pytest.mark.parametrize("column", [0, 1])
def test_numbers_are_those_of_the_kernel(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip("the headers are not installed")
    defined = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[column].read_text()))
    assert {name: int(defined.get(name, -1)) for name in CALLS} == {name: pair[column] for name, pair in CALLS.items()}
