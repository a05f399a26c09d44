"""The report of a server under load on one screen of a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whetstone.report import format as written
from whetstone.report.kinds.service.markdown import load_words, percentile_words
from whetstone.report.kinds.service.page import latency, rate
from whetstone.report.kinds.service.schema import Latency, Load, Percentile, ServiceReport
from whetstone.report.sparkline import sparkline

__all__ = ["print_service"]

_BAR_CELLS = 16
_LEVEL_CELLS = 8
_LEVEL_UNITS = {"closed": "at once", "poisson": "req/s"}
_MOST_LOADS = 2
"""Of more, only the table of all loads is shown."""
_FORMULAS = (
    "TTFT = first token − due; E2E = last byte − due; TPOT = (E2E − TTFT) / (tokens − 1); ITL = between pieces. "
    "A percentile needs enough requests for its 95% interval."
)


def print_service(console: Console, report: ServiceReport, page: Path) -> None:
    """Prints a table of the loads or each with its latencies, what was noted, and where the rest is.

    Args:
        console: Where to.
        report: What to print.
        page: The page, for the last line.
    """
    counted = f"{written.count(report.source.rows)} requests, {written.count(report.source.warmup)} of warming up"
    console.print(Text.assemble(("SERVICE", "bold"), f"  {written.printable(report.title)}  ", (counted, "dim")))
    if len(report.loads) > 1:
        console.print(_levels(report.loads))
    for load in report.loads if len(report.loads) <= _MOST_LOADS else ():
        console.print(Text.assemble(("\n" + written.printable(load.model), "bold"), f"  {load_words(load)}"))
        console.print(_rates(load))
        console.print(_latencies(load))
        waited = [one.e2e_median_s for one in load.timeline if one.e2e_median_s is not None]
        if waited:
            span = f"  {latency(min(waited))} to {latency(max(waited))}"
            drawn = sparkline(waited, max(1, console.width - 15 - len(span)))
            console.print(Text.assemble(("E2E over time  ", "bold"), (drawn, "cyan"), span))
    for load in report.loads:
        if load.failures:
            kinds = ", ".join(f"{written.printable(one.status)} {written.count(one.count)}" for one in load.failures)
            console.print(Text(f"failed  {load_words(load)}: {kinds}", style="red"))
    for note in report.notes:
        console.print(Text(f"note  {written.printable(note)}", style="yellow"))
    console.print(Text(_FORMULAS, style="dim"))
    console.print(Text(f"report  {page}", style="bold", overflow="fold"))


def _levels(loads: Sequence[Load]) -> Table:
    """One row a load; the bar shows where throughput no longer rises."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("load", "failed", "tokens/s", "", "TTFT p50", "TPOT p50", "E2E p50", "goodput"):
        table.add_column(name, justify="left" if name in ("load", "") else "right")
    models = {load.model for load in loads}
    most = max(load.tokens_per_s for load in loads)
    for load in loads:
        of = load.latencies
        filled = round(_LEVEL_CELLS * load.tokens_per_s / most) if most else 0
        table.add_row(
            (f"{written.printable(load.model)} " if len(models) > 1 else "")
            + f"{load.level:.3g} {_LEVEL_UNITS[load.process]}",
            written.count(load.failed.count),
            written.rate(load.tokens_per_s),
            Text("█" * filled, "cyan"),
            *map(_short, (of.ttft.p50, of.tpot.p50, of.e2e.p50)),
            "–" if load.goodput is None else f"{rate(load.goodput.requests_per_s)}/s",
        )
    return table


def _short(found: Percentile) -> str:
    """The estimate; what is refused is said in full in the report."""
    return f"n < {found.needed}" if found.estimate is None else latency(found.estimate)


def _rates(load: Load) -> Text:
    failed = load.failed
    goodput = f"goodput {written.UNMEASURED}"
    if load.goodput is not None:
        goodput = f"goodput {rate(load.goodput.requests_per_s)}/s ({written.share(load.goodput.good.share)})"
    line = Text(f"{rate(load.requests_per_s)} requests/s, {written.rate(load.tokens_per_s)} tokens/s; {goodput}; ")
    said = f"failed {written.count(failed.count)} of {written.count(failed.n)} "
    said += f"({written.share(failed.share)} [{written.share(failed.low)}, {written.share(failed.high)}])"
    return line.append(said, "red" if failed.count else "")


def _latencies(load: Load) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("latency", "n", "p50", "p90", "p99"):
        table.add_column(name, justify="left" if name == "latency" else "right")
    table.add_column("p50 to p99", no_wrap=True)
    of = load.latencies
    longest = max((found for one in (of.ttft, of.e2e) if (found := _longest(one)) is not None), default=None)
    for title, one in (("TTFT", of.ttft), ("TPOT", of.tpot), ("ITL", of.itl), ("E2E", of.e2e)):
        cells = [percentile_words(found) for found in (one.p50, one.p90, one.p99)]
        table.add_row(title, written.count(one.n), *cells, _bar(one, longest if title in ("TTFT", "E2E") else None))
    return table


def _longest(one: Latency) -> float | None:
    return next((found.estimate for found in (one.p99, one.p90, one.p50) if found.estimate is not None), None)


def _bar(one: Latency, longest: float | None) -> Text:
    """The median filled, up to the highest known percentile shaded; on the scale of the longest of TTFT and E2E."""
    most = _longest(one)
    if most is None or longest is None or one.p50.estimate is None or longest <= 0:
        return Text("")
    filled, shaded = (round(_BAR_CELLS * value / longest) for value in (one.p50.estimate, most))
    return Text.assemble(("█" * filled, "cyan"), ("░" * (shaded - filled), "dim"))
