"""``whet bench serve``: its options, what it prints, what it keeps."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from talking_server import Server, Talk, status
from whetstone.cli.main import app
from whetstone.errors import UserError
from whetstone.files import read_json, read_jsonl
from whetstone.run import Run

KEY = "sk-very-secret"
REPORT = {"index.html", "report.md", "report.json"}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.models = status(200, {"data": [{"id": "small"}]})
    yield server
    server.close()


@pytest.fixture
def whet(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')

    def call(*arguments: str) -> Result:
        given = arguments if "--prompts" in arguments else (*arguments, "--prompts", "prompts.jsonl")
        result = CliRunner().invoke(app, ["bench", "serve", server.url, *given])
        if isinstance(result.exception, UserError):
            raise result.exception
        return result

    return call


def test_one_level(whet: Callable[..., Result], tmp_path: Path) -> None:
    result = whet("--requests", "8", "--clients", "2", "--slo", "ttft=60,e2e=60")
    assert result.exit_code == 0
    assert result.stdout.startswith("SERVICE  bench-serve  10 requests, 2 of warming up")
    text = " ".join(result.stdout.split())
    for said in (
        "2 clients, closed loop",
        "TTFT = first token − due",
        "needs n ≥ 36",
        "note The client's own event",
    ):
        assert said in text
    folder = tmp_path / "bench-serve"
    assert len(read_jsonl(folder / "requests.jsonl")) == 10
    assert {path.name for path in (folder / "report").iterdir() if path.suffix != ".svg"} == REPORT
    report = read_json(folder / "report" / "report.json")
    assert report["objective"] == {"ttft_s": 60, "tpot_s": None, "e2e_s": 60}
    assert report["loads"][0]["goodput"]["good"]["count"] == 8
    assert report["notes"] == read_json(folder / "requests.jsonl.meta.json")["notes"]


def test_levels_are_one_table_and_a_chart(whet: Callable[..., Result], tmp_path: Path) -> None:
    result = whet("--requests", "7", "--clients", "1,2,3", "--out", "here", "--explain", "--warmup", "0")
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines if " at once " in line][:3] == [[n, "at"] for n in ("1", "2", "3")]
    assert "█" * 8 in result.stdout
    assert "Goodput: Requests that succeeded within every stated limit / window." in result.stdout
    page, markdown = ((tmp_path / "here/report" / name).read_text() for name in ("index.html", "report.md"))
    assert "small, clients in a closed loop" in page
    assert "Generated tokens a second by load" in page
    assert "![Generated tokens a second by load](load-levels-0.svg)" in markdown
    assert "tokens a second" in (tmp_path / "here/report/load-levels-0.svg").read_text()


def test_a_poisson_process_as_json(whet: Callable[..., Result]) -> None:
    result = whet("--rate", "200", "--duration", "0.2", "--warmup", "1", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    (load,) = report["loads"]
    assert (load["process"], load["level"], load["warmup"], load["model"]) == ("poisson", 200, 1, "small")
    assert load["requests"] > 10


def test_answers_in_one_piece(whet: Callable[..., Result], server: Server) -> None:
    server.default = status(200, {"choices": [{"text": "hi"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    options = ("--no-stream", "--api", "completions", "--extra", '{"ignore_eos": true}', "--requests", "6", "--json")
    (load,) = json.loads(whet(*options, "--max-tokens", "7", "--system", "be brief").stdout)["loads"]
    assert (load["streamed"], load["latencies"]["ttft"]["n"], load["latencies"]["e2e"]["n"]) == (0, 0, 6)
    body = server.bodies[-1]
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (7, True, False)
    assert body["prompt"].startswith("be brief\n")


def test_the_prompts_of_a_run_and_its_place(
    whet: Callable[..., Result], make_run: Callable[..., Run], server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "runs" / "judged", n=3)
    whet("--prompts", "run:judged", "--run", "judged", "--requests", "3")
    assert len(read_jsonl(run.requests_path)) == 4
    assert (run.report / "service" / "index.html").exists()
    assert "Correct the sentence" in server.bodies[0]["messages"][-1]["content"]
    again = CliRunner().invoke(app, ["report", "judged", "--kind", "service", "--json"])
    assert json.loads(again.stdout) == read_json(run.report / "service" / "report.json")
    assert json.loads(again.stdout)["notes"]


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    whet: Callable[..., Result], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)

    async def telling(talk: Talk) -> None:
        await (talk.reply(500, {"error": f"{KEY} is not welcome"}) if len(server.bodies) > 1 else fine_of(talk))

    async def fine_of(talk: Talk) -> None:
        await talk.begin()
        await talk.say("a")
        await talk.finish()

    server.default = telling
    result = whet("--key-env", "THE_KEY", "--requests", "6")
    assert result.exit_code == 1
    assert f"Bearer {KEY}" in server.heads[-1]
    assert "*** is not welcome" in result.stdout
    assert "failed 1 client, closed loop: http 500 6" in " ".join(result.stdout.split())
    assert KEY not in result.output
    assert all(KEY not in path.read_text() for path in (tmp_path / "bench-serve").rglob("*") if path.is_file())


def test_rows_are_not_replaced_unasked(whet: Callable[..., Result]) -> None:
    whet("--requests", "1")
    with pytest.raises(UserError, match=r"requests.jsonl: is there already; give another --out, or --fresh"):
        whet("--requests", "1")
    assert whet("--requests", "1", "--fresh").exit_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--clients", "1", "--rate", "2"), "give one of them"),
        (("--clients", "1.5"), "--clients: expected whole numbers from 1 between commas, found '1.5'"),
        (("--clients", "0"), "found '0'"),
        (("--rate", "1,nan"), "--rate: expected numbers above 0 between commas, found 'nan'"),
        (("--slo", "ttft=fast"), "--slo: expected limits such as .* found 'ttft=fast'"),
        (("--slo", "ttft=1,ttft=2"), "found 'ttft=2'"),
        (("--slo", "p99=1"), "found 'p99=1'"),
        (("--key-env", "NOT_SET"), "no environment variable 'NOT_SET'"),
        (("--extra", "{"), "--extra: is no JSON"),
        (("--extra", "[]"), "--extra: expected an object"),
        (("--prompts", "made-up:many"), "expected a number of tokens"),
        (("--prompts", "gone.jsonl"), "gone.jsonl: no such file"),
        (("--prompts", "run:gone"), "'gone' is not a run"),
        (("--out", "a", "--run", "b"), "give one of them"),
    ],
)
def test_options_that_are_refused(
    whet: Callable[..., Result], server: Server, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        whet(*options)
    assert server.bodies == []
