"""The evidence: one row for each example, arm and generation."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["ARMS", "BASE", "BASE_AGAIN", "COPY_INPUT", "TUNED", "Arm", "Sample"]

Arm = Literal["copy-input", "base", "base-again", "tuned"]

COPY_INPUT: Arm = "copy-input"
BASE: Arm = "base"
BASE_AGAIN: Arm = "base-again"
TUNED: Arm = "tuned"
ARMS: tuple[Arm, ...] = (COPY_INPUT, BASE, BASE_AGAIN, TUNED)


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of one arm to one example.

    Times are seconds since the sample's batch was handed to the engine, by a monotonic clock; they are None for the
    copy-input arm, which generates nothing.

    Attributes:
        example: The id of the example.
        arm: Who answered.
        judgement: Fingerprint of the frozen judgement that it was generated for.
        prompt_hash: Hash of the prompt's token ids; equal across arms, or the comparison is not fair.
        prompt_tokens: Length of the prompt.
        text: The answer, special tokens removed.
        token_ids: What was generated, the end-of-turn token included.
        finish_reason: ``stop`` (the model ended its turn) or ``length`` (it was cut off).
        seed: The seed of this answer's own random stream; None when greedy.
        batch: Which batch of the arm it was generated in.
        first_token_s: When its first token was there.
        end_s: When its last token was there.
        memory_bytes: On CUDA the most that the batch took on the device; elsewhere the most that the process has taken
            so far, training in the same process included.
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

    def as_row(self) -> dict[str, Any]:
        """The JSON row."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Sample":
        """Reads back what :meth:`as_row` wrote."""
        return cls(**{**row, "token_ids": tuple(row["token_ids"])})
