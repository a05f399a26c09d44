"""The Pareto front against the definition, and its chart."""

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.report.cost_charts import telemetry_svg, tradeoff_svg
from whetstone.report.palette import LIGHT
from whetstone.report.suite_summary import ArmSummary, Estimate, Speed, SuiteSummary
from whetstone.report.summary import Summary, summarise
from whetstone.report.tradeoff import trade_off


@pytest.fixture(scope="module")
def summary(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarise(make_run(tmp_path_factory.mktemp("runs") / "front", n=60, tuned_skill=0.9))


def with_arms(suite: SuiteSummary, placed: list[tuple[int, int]]) -> SuiteSummary:
    arms = [
        ArmSummary(
            f"arm-{number}",
            {suite.primary.name: Estimate(quality / 10, 10, 10, None)},
            Speed(tokens_per_s=1.0, latency_p50_s=latency / 10, first_token_p50_s=0.1, memory_bytes=0),
        )
        for number, (quality, latency) in enumerate(placed)
    ]
    return replace(suite, arms=tuple(arms))


@given(placed=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=7))
def test_the_front_is_what_nothing_beats(summary: Summary, placed: list[tuple[int, int]]) -> None:
    found = trade_off(with_arms(summary.held_out, placed), tuple(f"arm-{number}" for number in range(9)))
    assert [point.latency_p50_s for point in found.points] == sorted(point.latency_p50_s for point in found.points)
    by_name = {f"arm-{number}": place for number, place in enumerate(placed)}
    for point in found.points:
        quality, latency = by_name[point.arm]
        beaters = [
            name
            for name, (other, time) in by_name.items()
            if other >= quality and time <= latency and (other, time) != (quality, latency)
        ]
        assert (point.beaten_by is None) == (not beaters)
        assert point.beaten_by is None or point.beaten_by in beaters
    assert found.front
    assert set(found.unmeasured) == {f"arm-{number}" for number in range(len(placed), 9)}


def test_arms_without_speed_are_named_and_not_drawn(summary: Summary) -> None:
    found = summary.tradeoff
    assert found.unmeasured == ("copy-input",)
    assert {point.arm for point in found.points} == {"base", "base-again", "few-shot", "tuned"}


@pytest.mark.parametrize(("memory", "said"), [(True, "tuned, 1.2 GiB"), (False, "tuned")])
def test_the_chart_names_every_arm_and_takes_its_colours_from_the_page(
    summary: Summary, memory: bool, said: str
) -> None:
    svg = tradeoff_svg(summary, width=300, height=200, memory=memory)
    assert svg is not None
    texts = [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert said in texts
    assert "Exact match (%)" in texts
    assert set(re.findall(r"var\(--([\w-]+)\)", svg)) <= LIGHT.keys()
    places = re.findall(r'<text[^>]*transform="translate\([\d.]+,([\d.]+)\)"[^>]*>(?:base|base-again)(?:,|<)', svg)
    assert abs(float(places[0]) - float(places[1])) >= 15


def test_telemetry_that_is_in_no_row_is_no_chart() -> None:
    rows: list[dict[str, Any]] = [{"step": 1, "learning_rate": 2e-4}, {"step": 2, "learning_rate": None}, {"step": 3}]
    assert telemetry_svg(rows, "gradient_norm", width=200, height=90) is None
    assert "e-4<" in (telemetry_svg(rows, "learning_rate", width=200, height=90) or "")
