"""What the jail is told, in JSON on its stdin. The checks are not among it: the answer is forked from who reads it."""

from typing import NamedTuple

__all__ = ["Job"]


class Job(NamedTuple):
    """One run.

    Attributes:
        parent: The process that started the jail, and without which it ends.
        isolate: Whether to leave the namespaces; with False the code has nothing but the limits.
        root: An empty folder to build the private root in, or to work in where nothing is isolated.
        disk_bytes: Size of ``/tmp``, and the longest message between answer and checks.
        limits: Values for setrlimit.
        answer: The code that nobody has read.
        names: What the checks ask of the answer; None where both run in one process.
        checks: Descriptor of a file with the code that raises where the answer is wrong.
        token: Descriptor that gives the proof of the end.
        result: Descriptor that takes it, or the reason of a refusal.
    """

    parent: int
    isolate: bool
    root: str
    disk_bytes: int
    limits: dict[str, int]
    answer: str
    names: list[str] | None
    checks: int
    token: int
    result: int
