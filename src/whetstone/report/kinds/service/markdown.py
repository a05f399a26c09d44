"""The report of a server under load as GitHub Markdown, with the charts as files beside it."""

from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.report.kinds.markdown import prose, table
from whetstone.report.kinds.service.charts import SATURATION, TITLES
from whetstone.report.kinds.service.page import latency, rate
from whetstone.report.kinds.service.schema import Load, Percentile, ServiceReport

__all__ = ["load_words", "markdown_service", "percentile_words"]


def load_words(load: Load) -> str:
    """How requests arrived."""
    if load.process == "poisson":
        return f"{load.level:.3g} requests/s, Poisson"
    return f"{load.level:.3g} client{'' if load.level == 1 else 's'}, closed loop"


def percentile_words(found: Percentile) -> str:
    """The estimate, or why there is none."""
    if found.estimate is not None:
        return latency(found.estimate)
    reason = "no request has it" if found.groups == 0 else f"needs n ≥ {written.count(found.needed)}"
    return f"{written.UNMEASURED}: {reason}"


def markdown_service(report: ServiceReport, charts: dict[str, str | None]) -> str:
    """Renders the report.

    Args:
        report: What it says.
        charts: By the names of their files, ``load-0-e2e``, ``load-levels-0``; those that are None do not exist.
    """
    claims = Claims(report.model_dump(mode="json"))
    sections = [_head(report, claims)]
    levels = [name for name, svg in charts.items() if svg is not None and name.startswith("load-levels-")]
    sections += [f"![{SATURATION}]({name}.svg)" for name in levels]
    if report.notes:
        sections.append("## Notes\n\n" + "\n".join(f"- {prose(note)}" for note in report.notes))
    sections += [_load(load, f"loads.{index}", claims, charts) for index, load in enumerate(report.loads)]
    formulas = [[one.title, one.formula] for one in report.definitions]
    sections += [
        f"## Definitions\n\n{table(['', ''], formulas)}",
        f"## What this rests on\n\n{prose(report.source.name)} `{report.source.sha256}`",
    ]
    return "\n\n".join(sections) + "\n"


def _head(report: ServiceReport, claims: Claims) -> str:
    rows = [
        [
            load.model,
            load_words(load),
            written.count(load.requests),
            written.share(load.failed.share),
            rate(load.requests_per_s),
            written.rate(load.tokens_per_s),
            percentile_words(load.latencies.ttft.p50),
            percentile_words(load.latencies.e2e.p50),
            written.UNMEASURED if load.goodput is None else f"{rate(load.goodput.requests_per_s)}/s",
        ]
        for load in report.loads
    ]
    head = ["Model", "Load", "Requests", "Failed", "Requests/s", "Tokens/s", "TTFT median", "E2E median", "Goodput"]
    objective = "Goodput needs an objective, which nobody stated."
    if report.objective is not None:
        ttft, tpot, e2e = (claims.text(f"objective.{name}", latency) for name in ("ttft_s", "tpot_s", "e2e_s"))
        objective = f"Objective: TTFT at most {ttft}, TPOT at most {tpot}, E2E at most {e2e}."
    counted = claims.text("source.rows", written.count), claims.text("source.warmup", written.count)
    said = f"{counted[0]} measured requests, {counted[1]} of warming up left out. {objective}"
    return f"# Service: {prose(report.title)}\n\n{said}\n\n{table(head, rows)}"


def _load(load: Load, path: str, claims: Claims, charts: dict[str, str | None]) -> str:
    latencies = [
        [title, claims.text(f"{path}.latencies.{name}.n", written.count)]
        + [_spanned(found) for found in (of.p50, of.p90, of.p99)]
        for name, title, of in (
            ("ttft", "Time to first token", load.latencies.ttft),
            ("tpot", "Time per output token", load.latencies.tpot),
            ("itl", "Inter-token latency", load.latencies.itl),
            ("e2e", "End to end", load.latencies.e2e),
        )
    ]
    failures = [
        [failure.status, written.count(failure.count), _share(f"{path}.failures.{index}", claims)]
        for index, failure in enumerate(load.failures)
    ]
    goodput = f"Goodput: {written.UNMEASURED}."
    if load.goodput is not None:
        good = _share(f"{path}.goodput.good", claims)
        goodput = f"Goodput: {rate(load.goodput.requests_per_s)} requests per second, {good} of requests."
    parts = [
        f"## {prose(load.model)}: {load_words(load)}",
        f"{written.count(load.requests)} requests in {written.duration(load.window_s)}; failed: "
        f"{_share(f'{path}.failed', claims)}. {goodput}",
        table(["Latency", "Values", "Median", "90th percentile", "99th percentile"], latencies),
        *([table(["Failure", "Requests", "Share"], failures)] if failures else []),
    ]
    for name, title in TITLES.items():
        file = f"{path.replace('loads.', 'load-')}-{name}"
        parts.append(f"{title}: {written.UNMEASURED}." if charts[file] is None else f"![{title}]({file}.svg)")
    return "\n\n".join(parts)


def _spanned(found: Percentile) -> str:
    if found.low is None or found.high is None:
        return percentile_words(found)
    return f"**{percentile_words(found)}** ({latency(found.low)} to {latency(found.high)})"


def _share(path: str, claims: Claims) -> str:
    share, low, high = (claims.text(f"{path}.{name}", written.share) for name in ("share", "low", "high"))
    return f"{share} ({low} to {high})"
