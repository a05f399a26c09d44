"""Starts one server, loads it with the client of ``whet bench serve`` and prints what came; of serve_vs_peers.py.

Run as: python benchmarks/serve_contestants.py '{"contestant": "whet serve", "folder": "...", "seed": 0, ...}'

Starting, loading and the first requests that warm up are left out for all. The engine answers the same prompts in this
process, without a server, as many at once.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from whetstone.bench.client import Target
from whetstone.bench.load import Level
from whetstone.bench.prompts import FixedPrompts, MadeUpPrompts
from whetstone.bench.request_row import Arrival, RequestRow
from whetstone.bench.serve_load import Plan, measure
from whetstone.report.kinds.service.summarise import summarise_service

WHET, TRANSFORMERS, ENGINE = "whet serve", "transformers serve", "engine, no server"
STARTING_S = 180.0
ENDING_S = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is asked to do.

    Attributes:
        contestant: Who answers.
        folder: Of the model.
        seed: Of the prompts.
        threads: Of the server or the engine.
        streams: Requests at once.
        requests: That count; ``streams`` more warm up.
        words: Of each prompt.
        new_tokens: Of each answer.
    """

    contestant: str
    folder: Path
    seed: int
    threads: int
    streams: int
    requests: int
    words: int
    new_tokens: int

    def prompts(self) -> FixedPrompts:
        """Each prompt once, the same for everybody."""
        made_up = MadeUpPrompts("made up", self.words, self.seed)
        count = self.streams + self.requests
        return FixedPrompts("made up", [made_up.prompt(number) for number in range(count)], count)


class _Unwatched:
    def begin(self, level: Level) -> None:
        return None

    def ended(self, row: RequestRow) -> None:
        return None


def main() -> None:
    """Does the task and prints one JSON object."""
    warnings.simplefilter("ignore")
    asked = json.loads(sys.argv[1])
    job = Job(**{**asked, "folder": Path(asked["folder"])})
    result = _answer_here(job) if job.contestant == ENGINE else _answer_over_http(job)
    sys.stdout.write(f"\n{json.dumps(result)}\n")


def _answer_over_http(job: Job) -> dict[str, Any]:
    with _serving(job) as (url, process):
        model = str(job.folder) if job.contestant == TRANSFORMERS else None
        target = Target(url, model, max_tokens=job.new_tokens)
        level = Level(Arrival("closed", job.streams), warmup=job.streams, requests=job.requests)
        with tempfile.TemporaryDirectory() as folder:
            requests = Path(folder) / "requests.jsonl"
            before_s = _processor_s(process)
            benchmark = measure(Plan(target, (level,), job.prompts(), job.seed), requests, _Unwatched())
            processor_s = _processor_s(process) - before_s
            (load,) = summarise_service(requests, job.contestant, None).loads
    if benchmark.failed:
        raise RuntimeError(f"{benchmark.failed} of {benchmark.counted} failed: {benchmark.measurement.notes}")
    tokens = round(load.tokens_per_s * load.window_s)
    if tokens != job.requests * job.new_tokens:
        raise RuntimeError(f"{tokens} tokens came and {job.requests * job.new_tokens} were asked for")
    lag = benchmark.measurement.levels[0].client
    return {
        "seconds": load.window_s,
        "tokens_per_s": load.tokens_per_s,
        "processor_seconds": processor_s * job.requests / (job.requests + job.streams),
        "ttft_s": load.latencies.ttft.p50.estimate,
        "tpot_s": load.latencies.tpot.p50.estimate,
        "client_late_s": lag.p99_s,
        "client_busy_share": lag.busy_share,
    }


@contextmanager
def _serving(job: Job) -> Iterator[tuple[str, psutil.Process]]:
    """The server in a process of its own, once it is ready; what it printed is in the message when it never is."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as said:
        server = subprocess.Popen(_command(job, port), env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            if not _ready(server, f"{url}{'/health/ready' if job.contestant == WHET else '/health'}"):
                said.seek(0)
                raise RuntimeError(f"{job.contestant} did not become ready:\n{said.read()[-3000:]}")
            yield url, psutil.Process(server.pid)
        finally:
            server.terminate()
            try:
                server.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _command(job: Job, port: int) -> list[str]:
    if job.contestant == WHET:
        whet = [sys.executable, "-c", "from whetstone.cli.main import main; main()"]
        return [*whet, "serve", str(job.folder), "--force", "--port", str(port)]
    # Pages and tokens at once are those with which its continuous batching is fastest in engine_vs_peers.py.
    pages = 2 * job.streams * ((job.words * 4 + job.new_tokens) // 16 + 2)
    return [
        *(sys.executable, "-m", "transformers.cli.transformers", "serve", str(job.folder)),
        *("--port", str(port), "--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"),
        *("--continuous-batching", "--attn-implementation", "sdpa"),
        *("--cb-block-size", "16", "--cb-num-blocks", str(pages), "--cb-max-batch-tokens", "512"),
    ]


def _ready(server: "subprocess.Popen[bytes]", url: str) -> bool:
    until_s = time.monotonic() + STARTING_S
    while time.monotonic() < until_s and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    return False


def _processor_s(process: psutil.Process) -> float:
    """Processor time of a server with its children."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _answer_here(job: Job) -> dict[str, Any]:
    import torch
    from engine_load import Ask
    from engine_whet import Machine, open_whet

    from whetstone.models.load import load_template

    torch.set_num_threads(job.threads)
    template, _ = load_template(job.folder, "auto")
    prompts = job.prompts().prompts
    asks = [Ask(tuple(template.prompt_ids(prompt.messages)), job.new_tokens) for prompt in prompts]
    machine = Machine(torch.device("cpu"), torch.float32)
    with open_whet(job.folder, machine, {}, job.streams) as answer:
        answer(asks[: job.streams])
        wall_s, processor_s = time.perf_counter(), time.process_time()
        answers = answer(asks[job.streams :])
        wall_s, processor_s = time.perf_counter() - wall_s, time.process_time() - processor_s
    tokens = sum(len(answered.token_ids) for answered in answers)
    return {"seconds": wall_s, "tokens_per_s": tokens / wall_s, "processor_seconds": processor_s}


if __name__ == "__main__":
    main()
