"""The evidence: one row for each example, arm and generation."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["ARMS", "ASKED_ALIKE", "BASE", "BASE_AGAIN", "COPY_INPUT", "FEW_SHOT", "TUNED", "Sample"]

COPY_INPUT = "copy-input"
BASE = "base"
BASE_AGAIN = "base-again"
FEW_SHOT = "few-shot"
TUNED = "tuned"
ARMS = (COPY_INPUT, BASE, BASE_AGAIN, FEW_SHOT, TUNED)
"""The arms of every comparison; an experiment may name more."""
ASKED_ALIKE = (COPY_INPUT, BASE, BASE_AGAIN, TUNED)
"""Those that are asked with the very same token ids; few-shot is the base with solved examples before the question."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of one arm to one example.

    Times are seconds since the sample's batch was handed to the engine, by a monotonic clock; they are None for the
    copy-input arm, which generates nothing.

    Attributes:
        example: The id of the example.
        arm: Who answered.
        judgement: Fingerprint of the frozen judgement that it was generated for.
        prompt_hash: Hash of the prompt's token ids; equal across the arms of the rule, or the comparison is not fair.
            Where a server renders the prompt, ``messages:`` and a hash of the messages.
        prompt_tokens: Length of the prompt; where a server renders it, as the server counts.
        text: The answer, special tokens removed.
        token_ids: What was generated, the end-of-turn token included; empty where a server gives text only.
        finish_reason: ``stop`` (the model ended its turn) or ``length`` (it was cut off).
        seed: The seed of this answer's own random stream; None when greedy.
        batch: Which batch of the arm it was generated in.
        first_token_s: When its first token was there.
        end_s: When its last token was there.
        memory_bytes: On CUDA the most that the batch took on the device; elsewhere the most that the process has taken
            so far, training in the same process included. None where a server computes.
        counted_tokens: How many tokens a server counted in the answer that it gave no ids of.
        repeat: Which of the answers to this example it is, where an arm is asked several times.
        measured: What only the machine could tell of the answer: ``tests_passed`` (1 or 0, the code was run),
            ``nll_nats``, ``nll_tokens`` and ``text_bytes`` (a text was predicted, and nothing generated).
    """

    example: str
    arm: str
    judgement: str
    prompt_hash: str
    prompt_tokens: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    seed: int | None = None
    batch: int = 0
    first_token_s: float | None = None
    end_s: float | None = None
    memory_bytes: int | None = None
    counted_tokens: int | None = None
    repeat: int = 0
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def new_tokens(self) -> int | None:
        """How many tokens the answer has; None where nobody counted."""
        return len(self.token_ids) or self.counted_tokens

    def as_row(self) -> dict[str, Any]:
        """The JSON row; what few rows have is left out of the others."""
        row = {**asdict(self), "token_ids": list(self.token_ids)}
        for name in ("repeat", "measured"):
            if not row[name]:
                del row[name]
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Sample":
        """Reads back what :meth:`as_row` wrote."""
        return cls(**{**row, "token_ids": tuple(row["token_ids"])})
