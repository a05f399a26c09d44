"""Several tests, one promise: p-values adjusted so that the whole set keeps its error rate.

Gates are adjusted with Holm: one false pass would ship a worse model. A table by category only says where to look, so
that a share of false leads is bearable, and Benjamini and Hochberg's false discovery rate finds more.
"""

from collections.abc import Sequence

from statsmodels.stats.multitest import multipletests

from whetstone.errors import UserError

__all__ = ["benjamini_hochberg", "holm"]


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
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that, of those called different at a level, at most that share is so by luck on average.

    Holds for tests that are independent or positively dependent, such as categories with examples of their own.

    Args:
        p_values: One p-value a test.

    Returns:
        The adjusted p-values (q) in the order given; empty for no tests.

    Raises:
        UserError: A value is not a number between 0 and 1.

    Source: Benjamini and Hochberg (1995), Controlling the false discovery rate, Journal of the Royal Statistical
    Society B 57, 289-300; computed by `statsmodels.stats.multitest.multipletests`.
    """
    return _adjusted(p_values, "fdr_bh")


def _adjusted(p_values: Sequence[float], method: str) -> list[float]:
    for index, p_value in enumerate(p_values):
        if not 0 <= p_value <= 1:
            raise UserError(f"p-value {index} is {p_value}: give numbers between 0 and 1")
    if len(p_values) == 0:
        return []
    return [float(adjusted) for adjusted in multipletests(p_values, method=method)[1]]
