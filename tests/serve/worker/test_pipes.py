"""Lines of any length pass the pipes whole."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from whetstone.serve.worker.pipes import EndOfServer, Pipe


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(end)


def test_lines_longer_than_a_pipe_holds_come_whole_from_several_threads(ends: tuple[int, int]) -> None:
    reading, writing = ends
    lines = [letter.encode() * 300_000 for letter in "abc"] + [b"", b"short"]
    pipe = Pipe(reading, writing)
    threads = [threading.Thread(target=pipe.write, args=(line + b"\n",)) for line in lines]
    for thread in threads:
        thread.start()
    came = pipe.lines()
    assert sorted(next(came) for _ in lines) == sorted(lines)
    for thread in threads:
        thread.join()


def test_a_line_may_come_in_parts_and_one_without_end_is_none(ends: tuple[int, int]) -> None:
    reading, writing = ends
    came = Pipe(reading, writing).lines()
    os.write(writing, b"one\ntw")
    assert next(came) == b"one"
    os.write(writing, b"o")
    os.write(writing, b"\nthree\nfou")
    assert [next(came), next(came)] == [b"two", b"three"]
    os.close(writing)
    assert list(came) == []


def test_writing_to_nobody_says_so(ends: tuple[int, int]) -> None:
    reading, writing = ends
    os.close(reading)
    with pytest.raises(EndOfServer):
        Pipe(reading, writing).write(b"hello\n")


def test_whoever_prints_does_not_speak_to_the_server() -> None:
    program = """
import os, sys
from whetstone.serve.worker.pipes import take_pipes
pipe = take_pipes()
print("noise", flush=True)
os.system("echo noise of a library; cat")
print("noise", file=sys.__stdout__, flush=True)
pipe.write(next(pipe.lines()) + b", and again\\n")
"""
    done = subprocess.run([sys.executable, "-c", program], input=b"once\n", capture_output=True, check=True, timeout=30)
    assert done.stdout == b"once, and again\n"
    assert done.stderr.count(b"noise") == 3
