"""What observation reads of whoever admits requests."""

from typing import Protocol

__all__ = ["AdmissionState"]


class AdmissionState(Protocol):
    """How many there are, and whether more are let in."""

    @property
    def waiting(self) -> int:
        """Answers that wait for a place."""
        ...

    @property
    def running(self) -> int:
        """Answers that have a place."""
        ...

    @property
    def draining(self) -> bool:
        """Whether what runs is finished and nothing new is let in."""
        ...
