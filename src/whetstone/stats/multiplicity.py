"""Several gates, one promise: p-values adjusted so that the whole set keeps its error rate."""

from collections.abc import Sequence

from statsmodels.stats.multitest import multipletests

from whetstone.errors import UserError

__all__ = ["holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests with Holm's step-down method.

    A verdict that reads several gates would pass one of them by luck more often than each gate promises. With
    the adjusted values, the chance of even one false pass stays below the level, whatever the dependence
    between the tests.

    Args:
        p_values: One p-value a gate.

    Returns:
        The adjusted p-values in the order given; empty for no gates.

    Raises:
        UserError: A value is not a number between 0 and 1.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6(2), 65-70; computed by `statsmodels.stats.multitest.multipletests`.
    """
    for index, p_value in enumerate(p_values):
        if not 0 <= p_value <= 1:
            raise UserError(f"p-value {index} is {p_value}: give numbers between 0 and 1")
    if len(p_values) == 0:
        return []
    return [float(adjusted) for adjusted in multipletests(p_values, method="holm")[1]]
