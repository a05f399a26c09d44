"""The unit of work: one prompt with the answers that count as right."""

from dataclasses import dataclass
from typing import Any, Literal

from whetstone.data.requirements import Requirements

__all__ = ["Example", "Message", "Role", "normalised"]

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The shape that chat templates take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and the answers that count as right.

    Attributes:
        id: Unique within its source, stable under reordering of the file.
        messages: The prompt, ending with the turn to be answered; empty for plain text, which is learned whole.
        references: One or more acceptable answers; the first is the one to learn when only one is used.
        source: The bare text that the task works on; the copy-input arm answers with it. Plain text is its own.
        group: Identity of what the example was made from. Examples of one group never straddle two splits,
            and statistics resample groups, not rows.
        category: Label for breaking results down.
        rejected: Answers that somebody liked less than the references; preference training learns the difference.
        tests: Python code that runs without a fault when an answer's code is right (:mod:`whetstone.data.tests`).
        requirements: What an answer has to fulfil whatever it says, such as a length or a JSON schema.
    """

    id: str
    messages: tuple[Message, ...]
    references: tuple[str, ...]
    source: str
    group: str
    category: str = "all"
    rejected: tuple[str, ...] = ()
    tests: str | None = None
    requirements: Requirements | None = None

    def as_row(self) -> dict[str, Any]:
        """The JSON row that is written beside the samples, so that reports need nothing else.

        What few examples have is left out where there is none, so that the hash of the others stays what it was.
        """
        row: dict[str, Any] = {
            "id": self.id,
            "messages": [message.as_dict() for message in self.messages],
            "references": list(self.references),
            "source": self.source,
            "group": self.group,
            "category": self.category,
        }
        if self.rejected:
            row["rejected"] = list(self.rejected)
        if self.tests is not None:
            row["tests"] = self.tests
        if self.requirements is not None:
            row["requirements"] = self.requirements.as_row()
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Example":
        """Reads back what :meth:`as_row` wrote."""
        return cls(
            id=row["id"],
            messages=tuple(Message(turn["role"], turn["content"]) for turn in row["messages"]),
            references=tuple(row["references"]),
            source=row["source"],
            group=row["group"],
            category=row["category"],
            rejected=tuple(row.get("rejected", ())),
            tests=row.get("tests"),
            requirements=Requirements(**row["requirements"]) if "requirements" in row else None,
        )


def normalised(text: str) -> str:
    """A text as it is compared: case and white space do not make it another one."""
    return " ".join(text.lower().split())
