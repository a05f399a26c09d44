import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from whetstone.errors import UserError
from whetstone.stats.categories import compare_categories
from whetstone.stats.paired import compare_paired


def test_each_category_equals_a_comparison_of_its_examples() -> None:
    random = np.random.default_rng(0)
    n, names = 300, ["articles", "never seen", "verbs", "commas"]
    categories = random.choice([0, 2, 3], n)
    groups = 100 * categories + random.integers(0, 40, n)
    baseline = random.integers(0, 2, n).astype(float)
    candidate = np.where(random.random(n) < 0.1 * categories, 1.0, baseline)
    rows = compare_categories(baseline, candidate, groups, categories, names, resamples=300, seed=4)
    assert [row.name for row in rows] == names
    p_values = []
    for number, row in enumerate(rows):
        here = categories == number
        assert (row.n, row.groups) == (here.sum(), len(set(groups[here])))
        if number == 1:
            assert (row.n, row.paired, row.q_value) == (0, None, None)
            continue
        assert row.paired == compare_paired(baseline[here], candidate[here], groups[here], resamples=300, seed=4)
        p_values.append(row.paired.p_value)
    adjusted = [row.q_value for row in rows if row.q_value is not None]
    assert adjusted == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


def test_one_group_was_not_measured_and_is_not_counted_as_a_test() -> None:
    baseline, candidate = [0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0]
    groups, categories = np.array([1, 2, 3, 4, 5, 5]), np.array([1, 1, 1, 1, 0, 0])
    single, several = compare_categories(baseline, candidate, groups, categories, ["one source", "four"])
    assert (single.n, single.groups, single.paired, single.q_value) == (2, 1, None, None)
    assert several.paired is not None
    assert several.q_value == several.paired.p_value == 2 / 2**4


def test_input_is_checked() -> None:
    numbers = np.array([0, 1])
    with pytest.raises(UserError, match=r"\[2, 1, 2, 2\] entries"):
        compare_categories([0, 1], [1], numbers, numbers, ["a", "b"])
    with pytest.raises(UserError, match="run from 0 to 1 for 1 names"):
        compare_categories([0, 1], [1, 1], numbers, numbers, ["a"])
