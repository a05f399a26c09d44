"""What is to be known of a program that can serve models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from whetstone.serve.delegate.dialect import Dialect
from whetstone.serve.delegate.order import Form, Prepared

__all__ = ["Launch", "Program"]


@dataclass(frozen=True, slots=True)
class Launch:
    """How a program is started.

    Attributes:
        command: With its arguments.
        environment: What it is told beside the environment of this process.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]


class Program(Protocol):
    """A program that serves models; knows its command line and what it cannot serve as it was trained."""

    @property
    def title(self) -> str:
        """What it is called."""
        ...

    @property
    def engine(self) -> str:
        """What computes, as the card of a model says it."""
        ...

    @property
    def form(self) -> Form:
        """What it reads."""
        ...

    @property
    def takes_token_ids(self) -> bool:
        """Whether it continues token ids; else it renders prompts itself."""
        ...

    @property
    def grace_s(self) -> float:
        """How long it may take to end; answers that were being given have been waited for already."""
        ...

    def dialect(self, prepared: Prepared) -> Dialect:
        """How questions are put to it."""
        ...

    def check(self, prepared: Prepared) -> None:
        """Looks at models before anything is started.

        Raises:
            UserError: It would serve one of them otherwise than it was trained, or not at all.
        """
        ...

    def launch(self, prepared: Prepared, port: int, key: str) -> Launch:
        """How it is started.

        Args:
            prepared: What to serve.
            port: Of the loopback, where it listens.
            key: Without which nobody is to be answered, where it can hold to that.
        """
        ...

    def model(self, name: str) -> str:
        """What it calls a model that requests call by this name."""
        ...
