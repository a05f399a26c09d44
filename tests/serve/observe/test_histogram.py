from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference

from whetstone.serve.observe.histogram import Histogram

BOUNDS = (0.001, 0.01, 0.25, 1, 2.5)
VALUES = st.one_of(st.sampled_from((*BOUNDS, 0.0)), st.floats(0, 10, allow_subnormal=False))


@given(st.lists(VALUES, max_size=50))
def test_counts_as_that_of_prometheus_client_does(values: list[float]) -> None:
    registry = CollectorRegistry()
    reference = Reference("t", "t", registry=registry, buckets=BOUNDS)
    one_by_one, together = Histogram(BOUNDS), Histogram(BOUNDS)
    for value in values:
        reference.observe(value)
        one_by_one.add(value)
    together.add_all(iter(values))
    samples = [sample for family in registry.collect() for sample in family.samples]
    expected = [(sample.labels["le"], sample.value) for sample in samples if sample.name == "t_bucket"]
    assert one_by_one.cumulative() == together.cumulative() == expected
    (total,) = (sample.value for sample in samples if sample.name == "t_sum")
    assert one_by_one.total == together.total == total
