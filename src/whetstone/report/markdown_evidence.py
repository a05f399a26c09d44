"""The parts of the Markdown report that say what stands beside the held-out examples, and what to make of it all."""

from whetstone.evaluate.metrics.catalogue import CORPUS_METRICS
from whetstone.report import format as written
from whetstone.report.claims import Claims, suite_path
from whetstone.report.markdown_table import span, table
from whetstone.report.suite_summary import BASELINES, SuiteSummary
from whetstone.report.summary import Summary

__all__ = [
    "categories_section",
    "corpus_tables",
    "recommendations_section",
    "sanity_section",
    "suites_section",
    "tradeoff_section",
]


def suites_section(summary: Summary, claims: Claims) -> list[str]:
    """Every suite: its arms on its metrics, and the tuned arm against the others; nothing where none was asked."""
    if not summary.suites:
        return []
    parts = ["## Suites"]
    for suite in summary.suites:
        path = suite_path(suite.name)
        n, groups = (claims.text(f"{path}examples.{name}", written.count) for name in ("n", "groups"))
        parts.append(f"### {suite.name}\n\n{written.one_line(suite.about)} {n} cases in {groups} groups.")
        parts.append(_arms(summary, suite, claims))
        parts.append(_differences(suite, claims))
        parts += corpus_tables(summary, suite, claims)
    return parts


def corpus_tables(summary: Summary, suite: SuiteSummary, claims: Claims) -> list[str]:
    """The scores of all answers together, to be set beside published numbers; nothing where there are none."""
    path = f"{suite_path(suite.name)}corpus"
    arms = [arm for arm in summary.arm_names if arm in suite.evidence.arms]
    rows = [
        [
            f"{one.title}: {one.definition}",
            *(claims.text(f"{path}.{one.name}.{arm}", written.score(one.unit)) for arm in arms),
        ]
        for one in CORPUS_METRICS
        if one.name in suite.corpus
    ]
    tables = [table(["All answers together", *arms], rows)] if rows else []
    agreement = f"{suite_path(suite.name)}graders_agreement"
    if claims.value(agreement) is not None:
        alpha = claims.text(agreement, written.significant)
        tables.append(f"Graders agree, over both orders and each other, at Krippendorff's alpha {alpha} (1 is always).")
    return tables


def _arms(summary: Summary, suite: SuiteSummary, claims: Claims) -> str:
    arms = [arm for arm in summary.arm_names if claims.value(f"{suite_path(suite.name)}arms.{arm}") is not None]
    rows = []
    for metric in suite.metrics:
        cells = []
        for arm in arms:
            path = f"{suite_path(suite.name)}arms.{arm}.{metric.name}"
            mean = claims.text(f"{path}.mean", written.score(metric.unit))
            cells.append(f"{mean} ({span(claims, f'{path}.interval', written.bare_score(metric.unit))})")
        rows.append([f"{metric.title}: {metric.definition}", *cells])
    return table(["Metric", *arms], rows)


def _differences(suite: SuiteSummary, claims: Claims) -> str:
    rows = []
    for metric in suite.metrics:
        for over in BASELINES:
            path = f"{suite_path(suite.name)}comparisons.{metric.name}.{over}"
            if metric.direction == "neutral" or claims.value(path) is None:
                continue
            rows.append(
                [
                    metric.title,
                    f"{metric.direction} is better",
                    over,
                    claims.text(f"{path}.difference", written.difference(metric.unit)),
                    span(claims, f"{path}.interval", written.bare_difference(metric.unit)),
                    claims.text(f"{path}.n", written.count),
                ]
            )
    return table(["Metric", "Direction", "Tuned against", "Difference", "Interval", "n"], rows)


def categories_section(summary: Summary, claims: Claims) -> str:
    """The primary metric of the held-out examples by category."""
    unit = summary.primary.unit
    rows = []
    for index, row in enumerate(claims.value("categories.rows")):
        path = f"categories.rows.{index}"
        rows.append(
            [
                row["category"],
                claims.text(f"{path}.n", written.count),
                *(claims.text(f"{path}.arms.{arm}.mean", written.score(unit)) for arm in ("base", "tuned")),
                claims.text(f"{path}.comparison.difference", written.difference(unit)),
                span(claims, f"{path}.comparison.interval", written.bare_difference(unit)),
                claims.text(f"{path}.comparison.q_value", written.p_value).removeprefix("= "),
            ]
        )
    head = ["Category", "n", "Base", "Tuned", "Difference", "Interval", "q"]
    note = "q is p, allowing for how many categories are looked at (false discovery rate)."
    return f"## {summary.primary.title} by category\n\n{table(head, rows)}\n\n{note}"


def tradeoff_section(summary: Summary, claims: Claims) -> str:
    """Quality against latency and memory."""
    front = ", ".join(point.arm for point in summary.tradeoff.front) or written.UNMEASURED
    chart = "![Quality against latency](tradeoff.svg)\n\n" if summary.tradeoff.points else ""
    unmeasured = ", ".join(summary.tradeoff.unmeasured) or "none"
    return (
        f"## Quality against latency and memory\n\n{chart}No arm beats these in both quality and latency: {front}. "
        f"{written.UNMEASURED.capitalize()}: {unmeasured}."
    )


def sanity_section(summary: Summary, claims: Claims) -> str:
    """What a sceptic would try first."""
    if summary.sanity is None:
        return f"## Before you believe it\n\nTuned weights in use, engine, leaks: {written.UNMEASURED}."
    engine = ", ".join(
        f"{arm} {claims.text(f'sanity.engine.{arm}.equal')} of {claims.text(f'sanity.engine.{arm}.compared')}"
        for arm in claims.value("sanity.engine")
    )
    unit = summary.primary.unit
    leaked = f"{claims.text('sanity.leaked', written.count)} found"
    if summary.without_leaks is not None:
        leaked += f"; without them {claims.text('sanity.without_leaks.difference', written.difference(unit))}"
    rows = [
        ["Largest change of a logit", claims.text("sanity.logit_change", written.significant)],
        ["Greedy answers equal to those of transformers", engine or written.UNMEASURED],
        ["Held-out questions in training", f"{leaked}, among {claims.text('sanity.training_examples', written.count)}"],
        ["Answers cut off, tuned", claims.text("arms.tuned.truncated.mean", written.share)],
    ]
    return f"## Before you believe it\n\n{table(['', ''], rows)}"


def recommendations_section(claims: Claims) -> str:
    """What rules make of the evidence."""
    rows = [[f"**{one['state']}**", one["rule"], one["text"]] for one in claims.value("recommendations")]
    rows.sort(key=lambda row: row[0])
    return f"## What to do next\n\n{table(['State', 'Rule', 'Evidence'], rows)}"
