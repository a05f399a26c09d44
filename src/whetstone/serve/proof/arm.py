"""Whose judged answers a served model has to give."""

from typing import Literal

__all__ = ["Arm"]

Arm = Literal["tuned", "base"]
"""Of a run's arms, those whose weights the run itself holds; others are measured, and no gate looks at them."""
