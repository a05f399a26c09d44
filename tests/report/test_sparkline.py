import math

from hypothesis import given
from hypothesis import strategies as st

from whetstone.report.sparkline import sparkline


@given(st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]), max_size=300), st.integers(1, 120))
def test_a_sparkline_has_a_column_for_each_value_that_fits(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(width, len(values))


def test_a_sparkline_draws_the_shape() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([8, 6, 3, 5, 0, 0], 3) == "█▅▁"
    assert sparkline([1, math.nan, 2], 3) == "▁ █"
    assert sparkline([3, 3], 5) == "▁▁"
