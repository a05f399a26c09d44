import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from whetstone.report.charts import forest_svg, standalone, training_svg
from whetstone.report.forest import forest_of
from whetstone.report.palette import DARK, LIGHT
from whetstone.report.summary import Summary, summarise
from whetstone.run import Run


@pytest.fixture(scope="module")
def summary(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarise(make_run(tmp_path_factory.mktemp("runs") / "charts", n=120, tuned_skill=0.9))


def test_right_of_zero_is_better_whatever_the_direction(summary: Summary) -> None:
    forest = forest_of(summary)
    for effect in forest.effects:
        assert effect.comparison is not None
        better = effect.comparison.paired.difference * (1 if effect.metric.direction == "higher" else -1) > 0
        assert (forest.position(effect.comparison.gain) > forest.position(0)) == better
        ends = effect.comparison.gain_low, effect.comparison.gain_high
        assert effect.direction == ("better" if ends[0] > 0 else "worse" if ends[1] < 0 else "unclear")
        assert 0 < forest.position(ends[0]) < forest.position(ends[1]) < 100


def test_the_scale_has_zero_and_few_round_ticks_inside(summary: Summary) -> None:
    forest = forest_of(summary)
    assert 0.0 in forest.ticks
    assert 2 <= len(forest.ticks) <= 9
    assert all(forest.low <= tick <= forest.high for tick in forest.ticks)


def test_margins_stand_where_the_rule_tolerates_a_loss(summary: Summary) -> None:
    margins = {
        (effect.metric.name, effect.baseline): effect.margin
        for effect in forest_of(summary).effects
        if effect.margin is not None
    }
    assert margins == {("over_edit", "base"): 0.05, ("empty", "base"): 0.02, ("extra_text", "base"): 0.03}


def test_the_forest_plot_writes_every_difference_and_n(summary: Summary) -> None:
    svg = forest_svg(summary)
    assert svg is not None
    texts = [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert sum("points [" in text for text in texts) == len(summary.held_out.comparisons)
    assert texts.index("Exact match") < texts.index("Over-edit ↓") < texts.index("Truncated ↓")
    assert "n = 30" in texts


def test_charts_on_the_page_take_their_colours_from_it(summary: Summary) -> None:
    for svg in (forest_svg(summary), training_svg(summary, width=300, height=200)):
        assert svg is not None
        used = set(re.findall(r"var\(--([\w-]+)\)", svg))
        assert {"muted", "line"} <= used <= LIGHT.keys()
        assert not re.search(r'(?:fill|stroke)="#', svg)


def test_charts_as_files_are_whole_in_light_and_dark(summary: Summary) -> None:
    svg = standalone(forest_svg(summary) or "")
    ElementTree.fromstring(svg)
    assert "var(" not in svg
    assert f'fill="{LIGHT["good"]}"' in svg
    assert f'[fill="{LIGHT["good"]}"]{{fill:{DARK["good"]}}}' in svg.split("prefers-color-scheme:dark")[1]


def test_the_curve_survives_losses_that_were_not_measured(summary: Summary) -> None:
    def curve(**changed: None) -> str | None:
        rows = tuple(row | (changed if row["step"] <= 200 or len(changed) > 1 else {}) for row in summary.training)
        return training_svg(replace(summary, training=rows), width=300, height=200)

    part, whole = curve(loss=None), curve()
    assert part is not None
    assert whole is not None
    assert ">training</text>" in part
    assert len(part) < len(whole)
    assert curve(loss=None, validation_loss=None) is None


def test_the_axis_says_nats_only_of_cross_entropies(summary: Summary) -> None:
    experiment = summary.manifest.experiment
    for method, title in (("lora", "Loss per token (nats)"), ("dpo", "Loss")):
        tune = experiment.tune.model_copy(update={"method": method})
        asked = experiment.model_copy(update={"tune": tune})
        found = replace(summary, manifest=summary.manifest.model_copy(update={"experiment": asked}))
        assert f">{title}</text>" in (training_svg(found, width=300, height=200) or "")


def test_nothing_measured_is_no_chart(summary: Summary, make_run: Any, tmp_path: Path) -> None:
    run: Run = make_run(tmp_path / "bare", n=20, arms=("base",), tuning=False)
    bare = summarise(run)
    assert forest_svg(bare) is None
    assert training_svg(bare, width=300, height=200) is None
    shutil.rmtree(run.path)
