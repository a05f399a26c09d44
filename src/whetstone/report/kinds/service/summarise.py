"""Computes the report of a server under load from the rows of its requests.

Notable: rows are told apart by model, arrival process and level, and each load is summarised by itself; a percentile
over several loads would be one of a mixture that nobody asked for.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from statsmodels.stats.proportion import proportion_confint

from whetstone.bench.measurement import read_measurement
from whetstone.bench.request_row import RequestRow, read_requests
from whetstone.report.kinds.service.schema import (
    Counted,
    Failure,
    Goodput,
    InFlight,
    Latencies,
    Latency,
    Load,
    Objective,
    Percentile,
    ServiceReport,
    Slice,
    Source,
)
from whetstone.stats.quantile import Quantile, grouped_quantile, quantile

__all__ = ["summarise_service"]

_LEVEL = 0.95
_SLICES = 60
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def summarise_service(path: Path, title: str, objective: Objective | None) -> ServiceReport:
    """Everything that the report says.

    Args:
        path: The rows.
        title: Of the report.
        objective: What a good answer keeps to; None where nobody stated it.

    Raises:
        UserError: The file is missing or damaged, or holds no request that counts; or what was noted of it cannot
            be read.
    """
    rows = read_requests(path)
    measurement = read_measurement(path)
    loads: dict[tuple[str, str, float], list[RequestRow]] = {}
    for row in rows:
        loads.setdefault((row.model, row.arrival.process, row.arrival.level), []).append(row)
    counted = {key: group for key, group in sorted(loads.items()) if not all(row.warmup for row in group)}
    return ServiceReport(
        title=title,
        source=Source(
            name=path.name,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            rows=len(rows),
            warmup=sum(row.warmup for row in rows),
        ),
        level=_LEVEL,
        objective=objective,
        loads=tuple(_load(group, objective) for group in counted.values()),
        notes=() if measurement is None else measurement.notes,
    )


def _load(group: Sequence[RequestRow], objective: Objective | None) -> Load:
    rows = [row for row in group if not row.warmup]
    good = [row for row in rows if row.succeeded]
    start_s, end_s = min(row.due_s for row in rows), max(row.end_s for row in rows)
    # A window without length comes only from rows without any duration, of which there is no rate.
    window_s = max(end_s - start_s, 1e-9)
    kinds = Counter(row.status for row in rows if not row.succeeded)
    return Load(
        model=rows[0].model,
        process=rows[0].arrival.process,
        level=rows[0].arrival.level,
        requests=len(rows),
        warmup=len(group) - len(rows),
        streamed=sum(row.streamed for row in rows),
        window_s=end_s - start_s,
        requests_per_s=len(good) / window_s,
        tokens_per_s=sum(row.new_tokens for row in good) / window_s,
        prompt_tokens_per_s=sum(row.prompt_tokens for row in good) / window_s,
        failed=_share(len(rows) - len(good), len(rows)),
        failures=tuple(
            Failure(status=status, **_share(count, len(rows)).model_dump()) for status, count in kinds.most_common()
        ),
        latencies=_latencies(good),
        goodput=None if objective is None else _goodput(rows, objective, window_s),
        in_flight=InFlight(mean=_busy_s(rows, start_s, end_s) / window_s, maximum=_most_at_once(rows)),
        timeline=tuple(_timeline(rows, start_s, window_s)),
    )


def _share(count: int, n: int) -> Counted:
    low, high = proportion_confint(count, n, alpha=1 - _LEVEL, method="wilson")
    return Counted(count=count, n=n, share=count / n, low=float(low), high=float(high))


def _ttft(row: RequestRow) -> float | None:
    return None if row.first_token_s is None else row.first_token_s - row.due_s


def _tpot(row: RequestRow) -> float | None:
    if row.first_token_s is None or row.new_tokens < 2:
        return None
    return (row.end_s - row.first_token_s) / (row.new_tokens - 1)


def _e2e(row: RequestRow) -> float:
    return row.end_s - row.due_s


def _latencies(good: Sequence[RequestRow]) -> Latencies:
    gaps = [[then - before for before, then in pairwise(row.token_times_s or ())] for row in good]
    gaps = [of_request for of_request in gaps if of_request]

    def each(of: Callable[[RequestRow], float | None]) -> Latency:
        values = [value for row in good if (value := of(row)) is not None]
        return _latency(len(values), len(values), lambda share: quantile(values, share, level=_LEVEL))

    return Latencies(
        ttft=each(_ttft),
        tpot=each(_tpot),
        itl=_latency(sum(map(len, gaps)), len(gaps), lambda share: grouped_quantile(gaps, share, level=_LEVEL)),
        e2e=each(_e2e),
    )


def _latency(n: int, groups: int, estimate: Callable[[float], Quantile]) -> Latency:
    found = {name: _percentile(estimate(share), groups) for name, share in _PERCENTILES.items()}
    return Latency(n=n, **found)


def _percentile(found: Quantile, groups: int) -> Percentile:
    return Percentile(
        share=found.share,
        n=found.n,
        groups=groups,
        needed=found.needed,
        estimate=found.estimate,
        low=None if found.interval is None else found.interval.low,
        high=None if found.interval is None else found.interval.high,
    )


def _goodput(rows: Sequence[RequestRow], objective: Objective, window_s: float) -> Goodput:
    good = sum(row.succeeded and _within(row, objective) for row in rows)
    return Goodput(good=_share(good, len(rows)), requests_per_s=good / window_s)


def _within(row: RequestRow, objective: Objective) -> bool:
    ttft, tpot = _ttft(row), _tpot(row)
    if objective.e2e_s is not None and _e2e(row) > objective.e2e_s:
        return False
    if objective.ttft_s is not None and (ttft is None or ttft > objective.ttft_s):
        return False
    if objective.tpot_s is None or row.new_tokens < 2:
        return True
    return tpot is not None and tpot <= objective.tpot_s


def _busy_s(rows: Sequence[RequestRow], start_s: float, end_s: float) -> float:
    """Seconds of answering inside a span, added up over requests."""
    return sum(max(0.0, min(row.end_s, end_s) - max(row.started_s, start_s)) for row in rows)


def _most_at_once(rows: Sequence[RequestRow]) -> int:
    """The most requests in flight; one that ends as another begins has made room for it."""
    changes = sorted([(row.end_s, -1) for row in rows] + [(row.started_s, 1) for row in rows])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _timeline(rows: Sequence[RequestRow], start_s: float, window_s: float) -> list[Slice]:
    """At most 60 equal slices, and no more than there are requests."""
    count = min(_SLICES, len(rows))
    width_s = window_s / count
    members: list[list[RequestRow]] = [[] for _ in range(count)]
    for row in rows:
        members[min(count - 1, int((row.due_s - start_s) / width_s))].append(row)
    return [
        _slice(rows, members[index], start_s + index * width_s, start_s + (index + 1) * width_s)
        for index in range(count)
    ]


def _slice(rows: Sequence[RequestRow], due: Sequence[RequestRow], start_s: float, end_s: float) -> Slice:
    good = [row for row in due if row.succeeded]
    ttft = [value for row in good if (value := _ttft(row)) is not None]
    e2e = [_e2e(row) for row in good]
    return Slice(
        start_s=start_s,
        end_s=end_s,
        due=len(due),
        in_flight=_busy_s(rows, start_s, end_s) / (end_s - start_s),
        ttft_median_s=median(ttft) if ttft else None,
        ttft_slowest_s=max(ttft, default=None),
        e2e_median_s=median(e2e) if e2e else None,
        e2e_slowest_s=max(e2e, default=None),
    )
