"""The dashboard shows what the server tells, and nothing that it does not."""

import json
import re
from importlib.resources import files
from typing import Any

from observed import Admission, answered_with
from scripted_backend import ScriptedBackend, model_named
from whetstone.serve.backend import Load
from whetstone.serve.observe.drift import DriftWatch
from whetstone.serve.observe.metrics import Metrics
from whetstone.serve.served_model import JudgedRate

ASSETS = files("whetstone") / "serve" / "observe" / "assets"
DASHBOARD: dict[str, Any] = json.loads((ASSETS / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]

LEFT_OUT = re.compile("process_.*|python_.*")
"""What each process tells of itself is on dashboards of machines."""

LABEL = re.compile(r"\{[^{}]*\}")


class Loaded(ScriptedBackend):
    @property
    def load(self) -> Load:
        return Load(memory_bytes=1, cache_tokens=1, cache_bytes=1)


def _exported() -> dict[str, tuple[str, set[str]]]:
    """The type and labels of each series that can be asked for, by name."""
    rate = JudgedRate(name="empty", judged=0, samples=9, window=9, low=0, high=1)
    backends = (Loaded(models={"demo": model_named("demo").model_copy(update={"judged_rates": (rate,)})}),)
    metrics = Metrics(backends, (), Admission(), DriftWatch(backends))
    metrics.answered(answered_with())
    return {
        sample.name: (family.type, set(sample.labels))
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def _named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:whetstone|process)_[a-z_]+", expression))


def test_the_dashboard_asks_for_what_is_exported() -> None:
    exported = _exported()
    for expression in EXPRESSIONS:
        assert _named(expression)
        assert _named(expression) <= set(exported), expression


def test_labels_of_the_dashboard_are_those_of_the_metrics() -> None:
    exported = _exported()
    for expression in EXPRESSIONS:
        for name, selected in re.findall(r"\b(whetstone_[a-z_]+)(\{[^{}]*\})?", expression):
            labels = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selected))
            assert labels <= exported[name][1], expression
        grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
        assert all(grouped <= exported[name][1] for name in _named(expression)), expression
    for panel in PANELS:
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            known = set().union(*(exported[name][1] for name in _named(target["expr"])))
            assert shown <= known, panel["title"]


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set().union(*map(_named, EXPRESSIONS))
    family = re.compile("_(bucket|sum|count)$")
    families = {family.sub("", name) for name in shown}
    missing = {name for name in _exported() if family.sub("", name) not in families and not LEFT_OUT.fullmatch(name)}
    assert missing == set()


def test_rates_are_of_counters_and_quantiles_of_buckets() -> None:
    exported = _exported()
    for expression in EXPRESSIONS:
        for name in re.findall(r"(?:rate|increase)\((whetstone_[a-z_]+)", expression):
            assert exported[name][0] in ("counter", "histogram")
        counted = {name for name in _named(expression) if exported[name][0] in ("counter", "histogram")}
        assert counted <= set(re.findall(r"(?:rate|increase)\((whetstone_[a-z_]+)", expression)), expression
        if "histogram_quantile" in expression:
            assert all(name.endswith("_bucket") for name in _named(expression)) and "by (le)" in expression
        bare = LABEL.sub("", expression)
        assert bare.count("(") == bare.count(")") and bare.count("[") == bare.count("]")


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] >= 36 and DASHBOARD["uid"] and DASHBOARD["title"]
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    for used in set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))):
        assert used in variables or used == "__rate_interval"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        assert panel["title"] and panel["description"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(references) == len(set(references))


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
