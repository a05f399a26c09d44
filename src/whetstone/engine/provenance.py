"""What answers: which weights, held how, and where they came from."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Provenance"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What answers.

    Attributes:
        ref: The name that it was opened by.
        engine: What computes: ``torch``, ``llama.cpp``, ``mlx`` or ``http``.
        origin: Where the weights are from, in words.
        sha256: Hash of the weights; None where they are random or with a server.
        adapter_sha256: Hash of the adapter on them.
        dtype: The type of the weights that are not quantised; None where the engine decides.
        quantisation: ``nf4`` or ``int8``; None for none that was asked for.
        template_hash: The chat template; None where a server renders.
        random_weights: The weights are random, and the answers mean nothing.
        device: Where torch computes; None where another engine decides.
    """

    ref: str
    engine: str
    origin: str
    sha256: str | None = None
    adapter_sha256: str | None = None
    dtype: str | None = None
    quantisation: str | None = None
    template_hash: str | None = None
    random_weights: bool = False
    device: str | None = None

    def recorded(self) -> dict[str, Any]:
        """What is written beside answers.

        The device is left out: a file of answers may be finished on another one, and what was written before the
        device was known stays the same.
        """
        values = asdict(self)
        del values["device"]
        return values
