"""Where answers come from, in one line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whetstone.engine.provenance import Provenance

__all__ = ["RANDOM_WEIGHTS", "provenance_line"]

RANDOM_WEIGHTS = "WARNING: RANDOM WEIGHTS, NOT A TRAINED MODEL: these answers mean nothing"
"""Stands at the start, and with every answer, wherever the weights are random."""

_SHOWN_DIGITS = 12


def provenance_line(provenance: "Provenance") -> str:
    """Origin, hash of the weights, precision and engine; what is not known is said to be so."""
    sha256 = provenance.sha256[:_SHOWN_DIGITS] if provenance.sha256 else "hash not known"
    parts = [f"{provenance.ref}: {provenance.origin}", sha256]
    if provenance.adapter_sha256:
        parts.append(f"adapter {provenance.adapter_sha256[:_SHOWN_DIGITS]}")
    parts.append(provenance.dtype or "precision not known")
    if provenance.quantisation:
        parts.append(provenance.quantisation)
    return ", ".join([*parts, provenance.engine])
