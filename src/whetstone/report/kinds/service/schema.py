"""What the ``report.json`` of a service report holds; its JSON schema is made from these models."""

from typing import Literal

from pydantic import Field

from whetstone.report.kinds.part import Part

__all__ = [
    "DEFINITIONS",
    "SCHEMA_VERSION",
    "Counted",
    "Definition",
    "Failure",
    "Goodput",
    "InFlight",
    "Latencies",
    "Latency",
    "Load",
    "Objective",
    "Percentile",
    "ServiceReport",
    "Slice",
    "Source",
]

SCHEMA_VERSION: Literal[1] = 1


class Definition(Part):
    """What a quantity is: its name, its symbol and its formula, in words of the rows."""

    name: str
    title: str
    formula: str


DEFINITIONS = (
    Definition(
        name="ttft",
        title="Time to first token (TTFT)",
        formula="first_token_s − due_s, where due_s is queued_s if the request was sent later than it fell due, else "
        "started_s. Only of answers that were streamed.",
    ),
    Definition(
        name="tpot",
        title="Time per output token (TPOT)",
        formula="(end_s − first_token_s) / (new_tokens − 1), which is (E2E − TTFT) / (new_tokens − 1); one value a "
        "request with two tokens or more.",
    ),
    Definition(
        name="itl",
        title="Inter-token latency (ITL)",
        formula="token_times_s[i] − token_times_s[i − 1], one value a gap, of requests that recorded their tokens. "
        "Where a server sends several tokens in one piece, it is the time between pieces.",
    ),
    Definition(name="e2e", title="End-to-end latency (E2E)", formula="end_s − due_s."),
    Definition(
        name="window",
        title="Window",
        formula="From the first due_s to the last end_s of the requests that count, warm-up left out.",
    ),
    Definition(
        name="throughput",
        title="Throughput",
        formula="Requests that succeeded / window; their new_tokens / window.",
    ),
    Definition(
        name="goodput",
        title="Goodput",
        formula="Requests that succeeded within every stated limit / window. Limits of TTFT and TPOT need a streamed "
        "answer; one of a single token meets any limit of TPOT.",
    ),
    Definition(
        name="in_flight",
        title="Requests in flight",
        formula="Sum of the times between started_s and end_s inside a span / its length.",
    ),
    Definition(
        name="percentile",
        title="Percentiles",
        formula="Linear interpolation between order statistics. The interval of TTFT, TPOT and E2E is that of order "
        "statistics (binomial, at least the stated level, whatever the distribution); that of ITL is Woodruff’s with "
        "requests as groups. A percentile is refused where n is so small that its interval would end beyond the "
        "smallest or the largest value: max(q, 1 − q)ⁿ must not exceed half of what the level leaves.",
    ),
    Definition(
        name="share",
        title="Shares",
        formula="Wilson’s interval over all requests that count. All intervals take requests as independent draws; "
        "requests that wait for each other are alike, so the truth is wider.",
    ),
)


class Percentile(Part):
    """A percentile with its interval; estimate and bounds are null where there are fewer than ``needed`` values.

    Attributes:
        share: Which: 0.9 is the 90th.
        n: Values there are.
        groups: Requests that they come from.
        needed: Requests that the interval needs.
    """

    share: float
    n: int
    groups: int
    needed: int
    estimate: float | None
    low: float | None
    high: float | None


class Latency(Part):
    """One kind of latency in seconds, over requests that succeeded; ``n`` is zero where no request has it."""

    n: int
    p50: Percentile
    p90: Percentile
    p99: Percentile


class Latencies(Part):
    """All kinds."""

    ttft: Latency
    tpot: Latency
    itl: Latency
    e2e: Latency


class Counted(Part):
    """A count of requests as a share of all that count, with Wilson's interval."""

    count: int
    n: int
    share: float
    low: float
    high: float


class Failure(Counted):
    """Requests that ended with one kind of error."""

    status: str


class Goodput(Part):
    """Requests within the objective."""

    good: Counted
    requests_per_s: float


class InFlight(Part):
    """How many requests were being answered: on average over the window, and at most."""

    mean: float
    maximum: int


class Slice(Part):
    """A slice of the window; latencies are of the requests that fell due in it and succeeded, null where none did."""

    start_s: float
    end_s: float
    due: int
    in_flight: float
    ttft_median_s: float | None
    ttft_slowest_s: float | None
    e2e_median_s: float | None
    e2e_slowest_s: float | None


class Load(Part):
    """All requests to one model that arrived in one way.

    Attributes:
        model: As it was asked for.
        process: How requests arrive.
        level: Clients of a closed loop, requests a second of a Poisson process.
        requests: That count.
        warmup: That do not.
        streamed: Of those that count.
        window_s: The time that rates are taken over.
        requests_per_s: Answered whole.
        tokens_per_s: Of answers, generated.
        prompt_tokens_per_s: Of the prompts of answered requests.
        failed: All that did not succeed.
        failures: The same by kind, most frequent first.
        goodput: Null where no objective was stated.
        timeline: The window in equal slices.
    """

    model: str
    process: Literal["closed", "poisson"]
    level: float
    requests: int
    warmup: int
    streamed: int
    window_s: float
    requests_per_s: float
    tokens_per_s: float
    prompt_tokens_per_s: float
    failed: Counted
    failures: tuple[Failure, ...]
    latencies: Latencies
    goodput: Goodput | None
    in_flight: InFlight
    timeline: tuple[Slice, ...]


class Objective(Part):
    """What a good answer keeps to, in seconds; a limit that is null was not stated."""

    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None = None


class Source(Part):
    """The file that was measured."""

    name: str
    sha256: str
    rows: int
    warmup: int


class ServiceReport(Part):
    """The whole report. Every number on the page stands here, under the path that the page names."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["service"] = "service"
    title: str
    source: Source
    level: float = Field(description="Coverage that all intervals aim at.")
    objective: Objective | None
    loads: tuple[Load, ...]
    notes: tuple[str, ...] = Field(default=(), description="What whoever measured the rows says of them.")
    definitions: tuple[Definition, ...] = DEFINITIONS
