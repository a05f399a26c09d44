"""The whole benchmark against a server in this process: its rows, its notes, and what ends it early."""

import _thread
import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from talking_server import Server, Talk, fine, status
from virtual_time import run_virtually
from whetstone.bench.client import Target
from whetstone.bench.lag import LATE_BOUND_S, Lag, LagWatch
from whetstone.bench.load import Level
from whetstone.bench.measurement import measurement_path, read_measurement
from whetstone.bench.prompts import Asked, FixedPrompts
from whetstone.bench.request_row import Arrival, RequestRow, read_requests
from whetstone.bench.serve_load import Benchmark, Plan, measure
from whetstone.data.example import Message
from whetstone.data.prompts import Prompt
from whetstone.errors import UserError

PROMPTS = FixedPrompts(
    "three prompts", [Prompt("here", str(n), (Message("user", f"say {n}"),), None) for n in range(3)], 3
)


class Seen:
    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.rows: list[RequestRow] = []

    def begin(self, level: Level) -> None:
        self.levels.append(level)

    def ended(self, row: RequestRow) -> None:
        self.rows.append(row)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.models = status(200, {"data": [{"id": "small"}]})
    yield server
    server.close()


def closed(clients: int, requests: int, warmup: int = 0) -> Level:
    return Level(Arrival("closed", clients), warmup, requests)


def measured(
    server: Server, path: Path, *levels: Level, prompts: Asked | int = PROMPTS, seen: Seen | None = None
) -> Benchmark:
    return measure(Plan(Target(server.url, timeout_s=5.0), levels, prompts), path / "requests.jsonl", seen or Seen())


def test_rows_and_what_is_said_of_them(server: Server, tmp_path: Path) -> None:
    seen = Seen()
    levels = (closed(1, 4, 1), closed(3, 6, 3), Level(Arrival("poisson", 400), 2, 10))
    benchmark = measured(server, tmp_path, *levels, seen=seen)
    rows = read_requests(tmp_path / "requests.jsonl")
    assert rows == tuple(seen.rows)
    assert seen.levels == list(levels)
    assert [sum(row.arrival == level.arrival for row in rows) for level in levels] == [5, 9, 12]
    assert [sum(row.warmup for row in rows if row.arrival == level.arrival) for level in levels] == [1, 3, 2]
    assert (benchmark.counted, benchmark.failed, benchmark.interrupted) == (20, 0, False)
    assert {(row.model, row.prompt_tokens, row.new_tokens, row.status) for row in rows} == {("small", 5, 2, "ok")}
    # As the rows are written by another library than the one that defines them.
    lines = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(json.dumps(row.as_row())) for row in rows]
    # Prompts go on from level to level, and one short answer comes before all.
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    assert sorted(asked[1:6]) == ["say 0", "say 0", "say 1", "say 1", "say 2"]
    assert (server.bodies[0]["max_tokens"], server.bodies[1]["max_tokens"]) == (1, 128)

    measurement = read_measurement(tmp_path / "requests.jsonl")
    assert measurement == benchmark.measurement
    assert measurement is not None
    assert (measurement.url, measurement.model, measurement.prompts) == (f"{server.url}/v1", "small", "three prompts")
    assert [level.arrival for level in measurement.levels] == [level.arrival for level in levels]
    assert all(level.client.worst_s >= level.client.p99_s >= 0 for level in measurement.levels)
    notes = "\n".join(measurement.notes)
    assert "26 requests asked 3 prompts" in notes
    assert "The client's own event loop was late by" in notes


def test_a_late_client_is_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LagWatch, "lag", lambda watch: Lag(0.02, 0.3, 0.1))
    notes = "\n".join(measured(server, tmp_path, closed(1, 2)).measurement.notes)
    assert "At 1 client the client was late by 20.0 ms" in notes
    assert "the numbers are the client's as much as the server's" in notes


def test_made_up_prompts_are_fitted_to_the_servers_count(server: Server, tmp_path: Path) -> None:
    async def counting(talk: Talk) -> None:
        await talk.begin()
        await talk.say("a")
        words = len(talk.body["messages"][-1]["content"].split())
        await talk.finish(usage={"prompt_tokens": 2 * words + 10, "completion_tokens": 1})

    server.default = counting
    benchmark = measured(server, tmp_path, closed(1, 3), prompts=64)
    assert {row.prompt_tokens for row in read_requests(tmp_path / "requests.jsonl")} <= {63, 64, 65}
    assert benchmark.measurement.prompts == "made up, about 64 tokens"


def test_what_a_reader_has_to_know(server: Server, tmp_path: Path) -> None:
    async def odd(talk: Talk) -> None:
        if "stream_options" in talk.body:
            await talk.reply(400, {"error": {"message": "unknown field stream_options"}})
        elif len(server.bodies) % 2:
            await talk.reply(503, {"error": {"message": "queue full"}})
        else:
            await talk.begin()
            await talk.say("a", finish_reason="stop")
            await talk.end()

    server.default = odd
    benchmark = measured(server, tmp_path, closed(1, 6))
    notes = "\n".join(benchmark.measurement.notes)
    assert (benchmark.counted, benchmark.failed) == (6, 3)
    assert "refuses stream_options" in notes
    assert "did not count the tokens of 3 answers; their pieces of text were counted" in notes
    assert "First to end with 'http 503': queue full." in notes
    assert {row.new_tokens for row in read_requests(tmp_path / "requests.jsonl") if row.succeeded} == {1}


def test_pieces_of_several_tokens_are_said(server: Server, tmp_path: Path) -> None:
    async def lumps(talk: Talk) -> None:
        await talk.begin()
        await talk.say("a b c")
        await talk.say("d e f")
        await talk.finish(usage={"prompt_tokens": 1, "completion_tokens": 6})

    server.default = lumps
    benchmark = measured(server, tmp_path, closed(1, 2))
    assert any("3.00 tokens to a piece" in note for note in benchmark.measurement.notes)


def test_a_server_that_dies_is_rows_and_no_crash(server: Server, tmp_path: Path) -> None:
    answered = 0

    async def dying(talk: Talk) -> None:
        nonlocal answered
        answered += 1
        if answered > 12:
            server._server.close()
            talk.writer.close()
        else:
            await fine(talk)

    server.default = dying
    benchmark = measured(server, tmp_path, closed(2, 1000), closed(4, 1000))
    rows = read_requests(tmp_path / "requests.jsonl")
    assert sum(row.succeeded for row in rows) == 11
    assert {row.status for row in rows} == {"ok", "connection"}
    assert len(rows) < 100
    assert [level.arrival.level for level in benchmark.measurement.levels] == [2]
    assert any("no longer there" in note for note in benchmark.measurement.notes)


def test_ctrl_c_keeps_what_was_measured(server: Server, tmp_path: Path) -> None:
    async def slow(talk: Talk) -> None:
        # The first request comes before all levels.
        number = len(server.bodies) - 1
        if number == 7:
            # Now both clients wait.
            threading.Timer(0.05, _thread.interrupt_main).start()
        if number >= 6:
            await talk.until_closed()
        else:
            await fine(talk)

    server.default = slow
    benchmark = measured(server, tmp_path, closed(2, 1000), closed(4, 1000))
    rows = read_requests(tmp_path / "requests.jsonl")
    assert benchmark.interrupted
    assert {row.status for row in rows} == {"ok"}
    assert len(rows) == 5
    assert any("2 requests were under way and have no row" in note for note in benchmark.measurement.notes)
    assert measurement_path(tmp_path / "requests.jsonl").exists()


def test_nothing_is_written_before_the_server_has_answered_once(server: Server, tmp_path: Path) -> None:
    server.default = status(500, {"error": {"message": "broken"}})
    with pytest.raises(UserError, match="'http 500': broken"):
        measured(server, tmp_path, closed(1, 1))
    with pytest.raises(UserError, match="may have"):
        measured(server, tmp_path, closed(10_000_000, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_measurement_in_another_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    assert read_measurement(path) is None
    measurement_path(path).write_text('{"schema_version": 2}')
    with pytest.raises(UserError, match=r"requests.jsonl.meta.json: schema_version: .*; delete the file to report"):
        read_measurement(path)


def test_a_loop_that_is_held_up_is_seen() -> None:
    async def main(held_s: float) -> Lag:
        loop = asyncio.get_running_loop()
        async with LagWatch() as watch:
            for _ in range(50):
                await asyncio.sleep(0.02)
                loop._clock.now_s += held_s  # type: ignore[attr-defined]
            return watch.lag()

    idle, held = run_virtually(main(0.0)), run_virtually(main(0.03))
    assert idle.p99_s == pytest.approx(0, abs=1e-6)
    assert held.p99_s > LATE_BOUND_S
    assert held.worst_s == pytest.approx(0.03, abs=0.02)
    assert held.is_in_the_way


def test_a_busy_client_is_seen() -> None:
    async def main() -> Lag:
        async with LagWatch() as watch:
            began_s = time.monotonic()
            while time.monotonic() - began_s < 0.2:
                await asyncio.sleep(0)
            return watch.lag()

    lag = asyncio.run(main())
    assert 0 < lag.busy_share < 1.5
    assert Lag(0.0, 0.0, 0.9).is_in_the_way
    assert not Lag(0.001, 0.5, 0.3).is_in_the_way
