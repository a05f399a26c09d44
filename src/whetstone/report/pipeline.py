"""The verdict as pipelines read it: JUnit XML, and annotations of GitHub's workflows.

An open gate is an error in JUnit's terms: nothing failed, and nothing was shown. A skipped test would look green.
Sources: the JUnit schema as Jenkins and GitLab read it; GitHub Docs, "Workflow commands for GitHub Actions".
"""

from xml.etree import ElementTree

from whetstone.report import format as written
from whetstone.verdict.decide import Verdict
from whetstone.verdict.gate import Gate

__all__ = ["github_annotations", "junit_xml"]


def junit_xml(verdict: Verdict, run: str) -> str:
    """One test case a gate.

    Args:
        verdict: What was decided.
        run: The name of the run.
    """
    states = [gate.state for gate in verdict.gates]
    counts = {"tests": len(states), "failures": states.count("failed"), "errors": states.count("open")}
    suites = ElementTree.Element("testsuites", {name: str(count) for name, count in counts.items()})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": run, **suites.attrib})
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", {"name": "verdict", "value": verdict.outcome})
    for gate in verdict.gates:
        case = ElementTree.SubElement(suite, "testcase", {"classname": run, "name": _plain(gate.name)})
        if gate.state == "passed":
            ElementTree.SubElement(case, "system-out").text = _plain(gate.reason)
            continue
        kind = "failure" if gate.state == "failed" else "error"
        problem = ElementTree.SubElement(case, kind, {"type": gate.state, "message": _plain(gate.reason)})
        problem.text = _plain(gate.remedy)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def github_annotations(verdict: Verdict, run: str) -> list[str]:
    """One line of a workflow's log for the verdict, and one for each gate that did not pass."""
    level = {"SHIP": "notice", "REJECT": "error", "INCONCLUSIVE": "warning"}[verdict.outcome]
    passed = sum(gate.state == "passed" for gate in verdict.gates)
    lines = [_command(level, f"{verdict.outcome}: {run}", f"{passed} of {len(verdict.gates)} gates passed")]
    return lines + [_gate_command(gate) for gate in verdict.gates if gate.state != "passed"]


def _gate_command(gate: Gate) -> str:
    level = "error" if gate.state == "failed" else "warning"
    return _command(level, f"{gate.state}: {gate.name}", f"{gate.reason} {gate.remedy}".strip())


def _command(level: str, title: str, message: str) -> str:
    head = _escaped(_plain(title)).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={head}::{_escaped(_plain(message))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _plain(text: str) -> str:
    """On one line, without what XML cannot hold."""
    return written.one_line(text)
