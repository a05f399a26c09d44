"""How far several ratings of the same things agree beyond chance."""

from collections import Counter
from collections.abc import Hashable, Sequence

__all__ = ["krippendorff_alpha"]


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal ratings: 1 is full agreement, 0 what chance gives.

    Args:
        units: The ratings of each thing, by whoever rated it; things with one rating do not count.

    Returns:
        None where nothing was rated twice, or all ratings are the same word, which leaves nothing to agree about.

    Source: Krippendorff (2011), Computing Krippendorff's alpha-reliability, section C; Hayes and Krippendorff (2007),
    Communication Methods and Measures 1, 77-89.
    """
    rated = [unit for unit in units if len(unit) > 1]
    totals = Counter(rating for unit in rated for rating in unit)
    n = sum(totals.values())
    expected = sum(totals[one] * (n - totals[one]) for one in totals)
    if not expected:
        return None
    observed = 0.0
    for unit in rated:
        counts = Counter(unit)
        observed += sum(count * (len(unit) - count) for count in counts.values()) / (len(unit) - 1)
    return 1 - (n - 1) * observed / expected
