"""Which answer graders like better; scored from their rows, since it is said of pairs of answers."""

from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["PREFERRED", "PREFERRED_METRIC"]

PREFERRED = "preferred"
"""Its name."""


def _of_pairs(example: Example, sample: Sample) -> None:
    """One answer alone says nothing; :mod:`whetstone.evaluate.evidence` fills the column from the graders' rows."""


PREFERRED_METRIC = Metric(
    name=PREFERRED,
    title="Preferred",
    unit="score",
    direction="higher",
    definition="How often graders prefer the answer to the other arm's in both orders; a half for everything else.",
    score=_of_pairs,
    source="Zheng et al. 2023, arXiv:2306.05685",
)
