"""``whet bench``: measure how fast something is, with the evidence kept."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from whetstone.cli.common import FreshOption, JsonOption, RunsOption, print_json, resolve_run, status
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.bench.load import Level
    from whetstone.bench.prompts import Asked
    from whetstone.bench.request_row import RequestRow
    from whetstone.bench.serve_load import Plan
    from whetstone.report.kinds.service.schema import Objective, ServiceReport

__all__ = ["bench"]

_MADE_UP = "made-up:"
_RUN = "run:"
_LIMITS = ("ttft", "tpot", "e2e")
_WARMUP_REQUESTS = 10
_USUAL_REQUESTS = 100

bench = typer.Typer(
    name="bench",
    help="Measure how fast something is, with the evidence kept.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@bench.callback()
def _bench() -> None:
    """Measure how fast something is, with the evidence kept."""


@bench.command()
def serve(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of an OpenAI-compatible server: http://localhost:8000.")],
    model: Annotated[str | None, typer.Option("--model", help="What the server calls it; else its only one.")] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", metavar="NAME", help="The environment variable that holds the API key.")
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts", help="A file with a prompt a line; run:NAME, what that run was judged on; made-up:TOKENS."
        ),
    ] = f"{_MADE_UP}128",
    system: Annotated[str | None, typer.Option("--system", help="The system turn of a file's prompts.")] = None,
    clients: Annotated[
        str | None, typer.Option("--clients", metavar="N[,N...]", help="Closed loop: so many wait for their answers.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="R[,R...]", help="Open loop: so many requests/s, Poisson.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", min=1, help="Count so many at each level; 100 without --duration.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.1, help="Begin requests for so many seconds at each level.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option("--warmup", min=0, help="Do not count so many; one a client, or 10 of an open loop.")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of answers whose prompt does not say.")] = 128,
    api: Annotated[
        Literal["chat", "completions"], typer.Option("--api", help="Which endpoint; completions need no chat template.")
    ] = "chat",
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Whether answers come in pieces; else no first token.")
    ] = True,
    extra: Annotated[
        str | None, typer.Option("--extra", metavar="JSON", help="More fields of each request: {'ignore_eos': true}.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that an answer is waited for.")] = 300.0,
    slo: Annotated[
        str | None, typer.Option("--slo", help="What is good, in seconds: ttft=0.5,tpot=0.05,e2e=10, or some of them.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of moments and of made-up prompts.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where rows and report go; bench-serve without it.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Keep rows and report in this run, instead of --out.")
    ] = None,
    fresh: FreshOption = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print the formula of each quantity.")] = False,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Load a server, and report its latencies, throughput and goodput with the rows they come from.

    Writes requests.jsonl, how it was measured, and a report; 'whet report --kind service' makes that again. Ctrl-C ends
    early and keeps what was measured. Exit code 0: all counted requests were answered; 1: some failed, or it was ended
    early; 2: bad input, or the server answered not even once.

    Example: whet bench serve http://localhost:8000 --clients 1,4,16 --slo ttft=0.5,tpot=0.05
    Example: whet bench serve http://localhost:8000 --prompts run:demo --rate 2,4,8 --duration 60
    """
    from whetstone.bench.client import Target
    from whetstone.bench.serve_load import Plan, measure

    objective = _objective(slo)
    levels = _levels(clients, rate, requests, duration, warmup)
    target = Target(url, model, _key(key_env), api, stream, max_tokens, _extra(extra), timeout)
    plan = Plan(target, levels, _prompts(prompts, system, runs), seed)
    place = _place(out, run, runs)
    if place.requests.exists() and not fresh:
        raise UserError(f"{place.requests}: is there already; give another --out, or --fresh to replace it")
    with place.lock:
        with _progress(plan) as watcher:
            benchmark = measure(plan, place.requests, watcher)
        if benchmark.counted == 0:
            raise UserError(f"{place.requests}: ended before a request was counted; measure for longer")
        report = _report(place, objective, as_json=as_json)
    if explain and not as_json:
        for one in report.definitions:
            typer.echo(f"{one.title}: {one.formula}")
    if benchmark.failed or benchmark.interrupted:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the rows and the report go, and who else must not write there meanwhile."""

    requests: Path
    report: Path
    title: str
    lock: AbstractContextManager[None]


def _place(out: Path | None, run: str | None, runs: Path) -> _Place:
    if run is None:
        folder = Path("bench-serve") if out is None else out
        return _Place(folder / "requests.jsonl", folder / "report", folder.resolve().name, nullcontext())
    if out is not None:
        raise UserError("--out and --run both say where rows go: give one of them")
    found = resolve_run(run, runs)
    return _Place(found.requests_path, found.report / "service", found.name, found.lock())


def _report(place: _Place, objective: "Objective | None", *, as_json: bool) -> "ServiceReport":
    from whetstone.report.kinds.service.terminal import print_service
    from whetstone.report.kinds.service.write import write_service_report

    with status.status("writing the report"):
        report = write_service_report(place.requests, place.report, place.title, objective)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_service(Console(), report, place.report / "index.html")
    return report


def _levels(
    clients: str | None, rate: str | None, requests: int | None, duration: float | None, warmup: int | None
) -> "tuple[Level, ...]":
    from whetstone.bench.load import Level
    from whetstone.bench.request_row import Arrival

    if clients is not None and rate is not None:
        raise UserError("--clients is a closed loop and --rate an open one: give one of them")
    if requests is None and duration is None:
        requests = _USUAL_REQUESTS
    if rate is not None:
        found = [Arrival("poisson", level) for level in _numbers("--rate", rate)]
    else:
        found = [Arrival("closed", level) for level in _numbers("--clients", clients or "1", whole=True)]
    return tuple(
        Level(arrival, _warmup(arrival.process, arrival.level) if warmup is None else warmup, requests, duration)
        for arrival in found
    )


def _warmup(process: str, level: float) -> int:
    return int(level) if process == "closed" else _WARMUP_REQUESTS


def _numbers(option: str, given: str, *, whole: bool = False) -> list[float]:
    """Numbers above 0 between commas, each once and in their order."""
    found: list[float] = []
    for part in given.split(","):
        try:
            number = float(part)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf") or (whole and number != int(number)):
            expected = "whole numbers from 1" if whole else "numbers above 0"
            raise UserError(f"{option}: expected {expected} between commas, found '{part}'; write {option} 1,4,16")
        if number not in found:
            found.append(number)
    return found


def _objective(slo: str | None) -> "Objective | None":
    from whetstone.report.kinds.service.schema import Objective

    if slo is None:
        return None
    limits: dict[str, float] = {}
    for part in slo.split(","):
        name, _, value = part.strip().partition("=")
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if name not in _LIMITS or not 0 <= seconds < float("inf") or name in limits:
            raise UserError(f"--slo: expected limits such as ttft=0.5,tpot=0.05,e2e=10 in seconds, found '{part}'")
        limits[name] = seconds
    return Objective(ttft_s=limits.get("ttft"), tpot_s=limits.get("tpot"), e2e_s=limits.get("e2e"))


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise UserError(f"--key-env: there is no environment variable '{name}'; set it to the key, or leave this out")
    return key


def _extra(given: str | None) -> dict[str, Any]:
    import json

    if given is None:
        return {}
    try:
        fields = json.loads(given)
    except json.JSONDecodeError as error:
        raise UserError(f"--extra: is no JSON ({error}); write it as --extra '{{\"ignore_eos\": true}}'") from None
    if not isinstance(fields, dict):
        raise UserError("--extra: expected an object; write it as --extra '{\"ignore_eos\": true}'")
    return fields


def _prompts(given: str, system: str | None, runs: Path) -> "Asked | int":
    from whetstone.bench.prompts import file_prompts, held_out_prompts

    if given.startswith(_MADE_UP):
        tokens = given.removeprefix(_MADE_UP)
        if not tokens.isdecimal() or int(tokens) < 1:
            raise UserError(f"--prompts: expected a number of tokens, found '{given}'; write {_MADE_UP}128")
        return int(tokens)
    if given.startswith(_RUN):
        return held_out_prompts(resolve_run(given.removeprefix(_RUN), runs))
    return file_prompts(Path(given), system)


class _Progress:
    """A bar over all requests, or over the seconds where time decides, with what is under way in words."""

    def __init__(self, bar: Progress, plan: "Plan") -> None:
        self._bar = bar
        self._requests = all(level.duration_s is None for level in plan.levels)
        total = sum(_size(level) for level in plan.levels)
        self._task = bar.add_task("ask", total=total)
        self._done = 0.0
        self._level: Level | None = None
        self._began_s: float | None = None
        self._ended = self._failed = 0

    def begin(self, level: "Level") -> None:
        """A level begins."""
        if not status.is_terminal:
            status.print(Text(_words(level)))
        if self._level is not None:
            self._done += _size(self._level)
        self._level, self._began_s, self._ended = level, None, 0

    def ended(self, row: "RequestRow") -> None:
        """A request ended."""
        self._ended += 1
        self._failed += not row.succeeded
        if self._began_s is None:
            self._began_s = row.started_s
        far = self._ended if self._requests else row.end_s - self._began_s
        failed = f", {self._failed} failed" if self._failed else ""
        words = "ask" if self._level is None else _words(self._level)
        self._bar.update(self._task, completed=self._done + far, description=words + failed)


def _words(level: "Level") -> str:
    arrival = level.arrival
    return f"{arrival.level:g} requests/s" if arrival.process == "poisson" else f"{arrival.level:g} at once"


def _size(level: "Level") -> float:
    """How much of the bar a level takes: requests, or seconds."""
    if level.duration_s is not None:
        return level.duration_s
    return level.warmup + (level.requests or 0)


@contextmanager
def _progress(plan: "Plan") -> Iterator[_Progress]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Drawing takes time from the requests, so it is done seldom.
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        console=status,
        transient=True,
        refresh_per_second=2,
        disable=not status.is_terminal,
    )
    with bar:
        yield _Progress(bar, plan)
