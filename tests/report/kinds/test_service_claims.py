"""Every number of a service report is computed a second time, from the rows and by other code, and compared."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whetstone.errors import UserError
from whetstone.report.kinds.service.page import latency
from whetstone.report.kinds.service.schema import Objective, ServiceReport
from whetstone.report.kinds.service.summarise import summarise_service
from whetstone.report.kinds.service.write import write_service_report

TTFT_S, TPOT_S, E2E_S = 0.2, 0.016, 1.5
Z = 1.959963984540054
Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(requests: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    path = write(folder / "requests.jsonl", requests)
    write_service_report(path, folder / "report", "requests", Objective(ttft_s=TTFT_S, tpot_s=TPOT_S, e2e_s=E2E_S))
    return folder / "report"


class Requests:
    """Recomputes what a path names; plain numpy and sums of binomials."""

    def __init__(self, rows: list[Row]) -> None:
        self.all = rows
        self.groups = [[row for row in rows if row["arrival"]["process"] == name] for name in ("closed", "poisson")]

    def expected(self, path: str) -> Any:
        first, *rest = path.split(".")
        return getattr(self, f"_{first}")(*rest)

    def _source(self, what: str) -> int:
        return len(self.all) if what == "rows" else sum(row["warmup"] for row in self.all)

    def _level(self) -> float:
        return 0.95

    def _objective(self, what: str) -> float:
        return {"ttft_s": TTFT_S, "tpot_s": TPOT_S, "e2e_s": E2E_S}[what]

    def _loads(self, index: str, what: str, *rest: str) -> Any:
        group = self.groups[int(index)]
        rows = [row for row in group if not row["warmup"]]
        good = [row for row in rows if row["status"] == "ok"]
        window = max(row["end_s"] for row in rows) - min(due(row) for row in rows)
        if what == "latencies":
            return percentile(rows, *rest)
        if what == "failures":
            return failure(rows, *rest)
        if what == "goodput":
            return goodput(rows, window, *rest)
        if what == "failed":
            return share(len(rows) - len(good), len(rows))[rest[0]]
        if what == "in_flight":
            return in_flight(rows, window)[rest[0]]
        return {
            "level": group[0]["arrival"]["level"],
            "requests": len(rows),
            "warmup": len(group) - len(rows),
            "streamed": sum(row["streamed"] for row in rows),
            "window_s": window,
            "requests_per_s": len(good) / window,
            "tokens_per_s": sum(row["new_tokens"] for row in good) / window,
            "prompt_tokens_per_s": sum(row["prompt_tokens"] for row in good) / window,
        }[what]


def due(row: Row) -> float:
    return float(row["started_s"] if row["queued_s"] is None else row["queued_s"])


def ttft(row: Row) -> float | None:
    return None if row["first_token_s"] is None else row["first_token_s"] - due(row)


def tpot(row: Row) -> float | None:
    if row["first_token_s"] is None or row["new_tokens"] < 2:
        return None
    return float((row["end_s"] - row["first_token_s"]) / (row["new_tokens"] - 1))


def share(count: int, n: int) -> dict[str, float]:
    """Wilson (1927), written out."""
    p, z = count / n, Z
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"count": count, "n": n, "share": p, "low": center - reach, "high": center + reach}


def in_flight(rows: list[Row], window: float) -> dict[str, float]:
    at = [row["started_s"] + 1e-9 for row in rows]
    most = max(sum(row["started_s"] <= moment < row["end_s"] for row in rows) for moment in at)
    return {"mean": sum(row["end_s"] - row["started_s"] for row in rows) / window, "maximum": most}


def failure(rows: list[Row], index: str, what: str) -> Any:
    kinds = Counter(row["status"] for row in rows if row["status"] != "ok").most_common()
    status, count = kinds[int(index)]
    return status if what == "status" else share(count, len(rows))[what]


def goodput(rows: list[Row], window: float, what: str, leaf: str = "") -> Any:
    good = 0
    for row in rows:
        first, each = ttft(row), tpot(row)
        quick = first is not None and first <= TTFT_S
        steady = row["new_tokens"] < 2 or (each is not None and each <= TPOT_S)
        whole = row["end_s"] - due(row) <= E2E_S
        good += row["status"] == "ok" and quick and steady and whole
    return good / window if what == "requests_per_s" else share(good, len(rows))[leaf]


def percentile(rows: list[Row], name: str, which: str, what: str = "") -> Any:
    good = [row for row in rows if row["status"] == "ok"]
    gaps = [np.diff(row["token_times_s"]) for row in good if row["token_times_s"] and len(row["token_times_s"]) > 1]
    values = {
        "ttft": np.array([value for row in good if (value := ttft(row)) is not None]),
        "tpot": np.array([value for row in good if (value := tpot(row)) is not None]),
        "itl": np.concatenate(gaps),
        "e2e": np.array([row["end_s"] - due(row) for row in good]),
    }[name]
    if which == "n":
        return len(values)
    q = {"p50": 0.5, "p90": 0.9, "p99": 0.99}[which]
    groups = len(gaps) if name == "itl" else len(values)
    if what in ("groups", "needed"):
        return groups if what == "groups" else next(n for n in range(1, 999) if q**n <= 0.025)
    if what == "estimate":
        return np.quantile(values, q)
    return (woodruff(gaps, q) if name == "itl" else order_statistics(np.sort(values), q))[what]


def order_statistics(values: "np.ndarray[Any, Any]", q: float) -> dict[str, float]:
    n = len(values)
    below = np.cumsum([math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)])
    low = max(rank for rank in range(1, n + 1) if below[rank - 1] <= 0.025)
    high = min(rank for rank in range(1, n + 1) if 1 - below[rank - 1] <= 0.025)
    return {"low": values[low - 1], "high": values[high - 1]}


def woodruff(gaps: "list[np.ndarray[Any, Any]]", q: float) -> dict[str, float]:
    from scipy.stats import t

    pooled = np.concatenate(gaps)
    at = np.quantile(pooled, q)
    observed = (pooled <= at).mean()
    rests = np.array([(gap <= at).sum() - observed * len(gap) for gap in gaps])
    variance = len(gaps) / (len(gaps) - 1) * (rests**2).sum() / len(pooled) ** 2
    reach = t.ppf(0.975, len(gaps) - 1) * math.sqrt(max(variance, q * (1 - q) / len(pooled)))
    return {"low": np.quantile(pooled, q - reach), "high": np.quantile(pooled, q + reach)}


def test_every_claim_is_recomputed_from_the_rows(
    folder: Path, requests: list[Row], parse: Callable[[Path], Any]
) -> None:
    rows, wrong = Requests(requests), []
    claims = parse(folder / "index.html").claims
    for path, value, _ in claims:
        expected = rows.expected(path)
        if value != expected and float(value) != pytest.approx(expected, rel=1e-9):
            wrong.append((path, value, expected))
    assert wrong == []
    leaves = {path.rpartition(".")[2] for path, _, _ in claims}
    assert {"estimate", "low", "high", "needed", "groups", "requests_per_s", "maximum", "status"} <= leaves
    assert len({path for path, _, _ in claims}) > 100


def test_claims_are_the_values_of_the_same_path_in_the_json_report(folder: Path, parse: Callable[[Path], Any]) -> None:
    report = json.loads((folder / "report.json").read_text())
    for path, value, _ in parse(folder / "index.html").claims:
        found = report
        for key in path.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert value == str(found)


def test_no_number_stands_outside_claims_manifest_and_charts(folder: Path, parse: Callable[[Path], Any]) -> None:
    # The columns of percentiles are names, not numbers that were measured.
    prose = [text for text in parse(folder / "index.html").prose if re.search(r"\d", text)]
    assert {re.sub(r"90th percentile|99th percentile|E2E(, median)?", "", text).strip() for text in prose} <= {""}


def test_a_percentile_of_too_few_requests_is_refused_with_the_rule(folder: Path, parse: Callable[[Path], Any]) -> None:
    report = ServiceReport.model_validate_json((folder / "report.json").read_text(), strict=False)
    many, few = (load.latencies.e2e for load in report.loads)
    assert many.p99.estimate is not None
    assert (few.p99.estimate, few.p99.low, few.p99.high, few.p99.needed) == (None, None, None, 368)
    assert few.p90.estimate is not None
    assert "not measured: needs n ≥ 368" in parse(folder / "index.html").text
    assert "not measured: needs n ≥ 368" in (folder / "report.md").read_text()


def test_a_slice_says_what_its_requests_say(folder: Path, requests: list[Row]) -> None:
    load = ServiceReport.model_validate_json((folder / "report.json").read_text(), strict=False).loads[0]
    rows = [row for row in requests if row["arrival"]["process"] == "closed" and not row["warmup"]]
    assert len(load.timeline) == 60
    assert sum(one.due for one in load.timeline) == load.requests
    one = load.timeline[17]
    inside = [row for row in rows if one.start_s <= due(row) < one.end_s]
    waits = [row["end_s"] - due(row) for row in inside if row["status"] == "ok"]
    busy = [min(row["end_s"], one.end_s) - max(row["started_s"], one.start_s) for row in rows]
    assert one.due == len(inside)
    assert one.e2e_median_s == pytest.approx(np.median(waits))
    assert one.e2e_slowest_s == pytest.approx(max(waits))
    assert one.in_flight == pytest.approx(sum(max(0.0, time) for time in busy) / (one.end_s - one.start_s))


def test_without_the_rows_there_is_no_report(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"requests.jsonl: no such file; give the requests.jsonl that was measured"):
        write_service_report(tmp_path / "requests.jsonl", tmp_path / "report", "t", None)
    assert not (tmp_path / "report").exists()


def row(index: int, **changes: Any) -> Row:
    return {
        "id": f"r{index}",
        "model": "m",
        "started_s": float(index),
        "first_token_s": None,
        "end_s": index + 0.5,
        "prompt_tokens": 1,
        "new_tokens": 4,
        "status": "ok",
        "streamed": False,
        "warmup": False,
        "arrival": {"process": "closed", "level": 1},
    } | changes


def test_answers_in_one_piece_have_no_first_token(tmp_path: Path, parse: Callable[[Path], Any]) -> None:
    path = write(tmp_path / "requests.jsonl", [row(index) for index in range(8)])
    report = write_service_report(path, tmp_path / "report", "t", None)
    (load,) = report.loads
    assert (load.latencies.ttft.n, load.latencies.tpot.n, load.latencies.itl.n) == (0, 0, 0)
    assert load.latencies.e2e.p50.estimate == 0.5
    assert load.goodput is None
    text = parse(tmp_path / "report" / "index.html").text
    assert "not measured: no request has it" in text
    assert "Goodput: not measured." in text


def test_nothing_succeeded(tmp_path: Path) -> None:
    path = write(tmp_path / "requests.jsonl", [row(index, status="timeout", new_tokens=0) for index in range(3)])
    (load,) = summarise_service(path, "t", Objective(ttft_s=1, tpot_s=None)).loads
    assert (load.requests_per_s, load.tokens_per_s, load.failed.share, load.failed.high) == (0, 0, 1, 1)
    assert load.goodput is not None
    assert load.goodput.good.count == 0


def test_loads_are_told_apart_and_charts_of_earlier_ones_do_not_stay(tmp_path: Path) -> None:
    loads = [{"process": "closed", "level": level} for level in (1, 2)]
    rows = [row(index, arrival=loads[index % 2]) for index in range(20)]
    report = write_service_report(write(tmp_path / "requests.jsonl", rows), tmp_path / "out", "t", None)
    assert [(load.level, load.requests) for load in report.loads] == [(1, 10), (2, 10)]
    assert (tmp_path / "out" / "load-1-e2e.svg").exists()
    assert "End-to-end latency by load" in (tmp_path / "out" / "index.html").read_text()
    write_service_report(write(tmp_path / "requests.jsonl", rows[::2]), tmp_path / "out", "t", None)
    assert (tmp_path / "out" / "load-0-e2e.svg").exists()
    assert not (tmp_path / "out" / "load-1-e2e.svg").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004123, "0.412 ms"),
        (0.00412, "4.12 ms"),
        (0.0412, "41.2 ms"),
        (0.412, "412 ms"),
        (4.124, "4.12 s"),
        (0.9999, "1.00 s"),
    ],
)
def test_latencies_have_three_digits(seconds: float, text: str) -> None:
    assert latency(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


HOSTILE = "</style><script>alert(1)</script><img src=x> {{ 7 * 7 }} \x1b[2J"


def test_what_a_server_calls_itself_is_shown_as_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests.jsonl",
        [row(i, model=HOSTILE, arrival={"process": "closed", "level": 1 + i % 2}) for i in range(9)],
    )
    write_service_report(path, tmp_path / "out", HOSTILE, None)
    html = (tmp_path / "out" / "index.html").read_text()
    assert html.count("<script>") == html.count("</style>") == 1
    assert "<img" not in html
    assert "<script>" not in (tmp_path / "out" / "report.md").read_text()
