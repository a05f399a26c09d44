import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from whetstone.errors import UserError
from whetstone.stats.multiplicity import benjamini_hochberg, holm

PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_hand_case_keeps_the_order_given() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 -> 0.02, 0.03, 0.06, and never below the one before: 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_one_gate_is_not_adjusted_and_no_gate_is_no_value() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@settings(max_examples=5)  # multipletests collects garbage on every call: 20 ms
@given(PROBABILITIES)
def test_equals_statsmodels(p_values: list[float]) -> None:
    assert np.allclose(holm(p_values), multipletests(p_values, method="holm")[1])


@settings(max_examples=5)  # multipletests collects garbage on every call: 20 ms
@given(PROBABILITIES)
def test_lies_between_the_value_and_bonferroni(p_values: list[float]) -> None:
    for p_value, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p_value <= adjusted + 1e-12
        assert adjusted <= min(1.0, p_value * len(p_values)) + 1e-12


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_rejects_what_is_no_probability(bad: float) -> None:
    with pytest.raises(UserError, match="p-value 1"):
        holm([0.5, bad])


def test_false_discovery_rate_by_hand() -> None:
    # Sorted: 0.005 x 4/1, 0.01 x 4/2, 0.03 x 4/3, 0.04 x 4/4, and never above the one after: 0.02, 0.02, 0.04, 0.04.
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([]) == []
    with pytest.raises(UserError, match="p-value 0"):
        benjamini_hochberg([2.0])


@settings(max_examples=3)  # multipletests collects garbage on every call: 20 ms
@given(PROBABILITIES)
def test_false_discovery_rate_equals_statsmodels_and_is_kinder_than_holm(p_values: list[float]) -> None:
    adjusted = benjamini_hochberg(p_values)
    assert np.allclose(adjusted, multipletests(p_values, method="fdr_bh")[1])
    assert all(q <= p + 1e-12 for q, p in zip(adjusted, holm(p_values), strict=True))
