"""A server of ours beside that of transformers: tokens a second and time to the first token of 16 streams at once.

Run as: .venv/bin/python benchmarks/serve_vs_peers.py [--json] [--quick]
        .venv/bin/python benchmarks/serve_vs_peers.py --contestant "transformers serve" --contestant "engine, no server"

``whet serve`` and ``transformers serve --continuous-batching`` serve the same folder: a Llama with 15 M random
weights, in float32. Sixteen clients in a closed loop send the same prompts and ask for as many tokens, greedily; no
answer can end early. The client is that of ``whet bench serve``, on the same machine, so it takes processor time from
whoever it measures; how late it was is printed. The engine answers the same prompts in one process without a server:
what ``whet serve`` takes beyond it is the price of HTTP.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from engine_load import SHAPES, write_model
from harness import Round, benchmark_parser, finish, median_ratio, medians, table, take_turns
from serve_contestants import ENGINE, TRANSFORMERS, WHET

WORKER = Path(__file__).with_name("serve_contestants.py")
AGAIN = "whet serve again"
CONTESTANTS = (WHET, TRANSFORMERS, ENGINE, AGAIN)


def main() -> None:
    """Runs the contestants in turns and prints a table."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / arguments.shape
        write_model(folder, SHAPES[arguments.shape])
        job = {
            "folder": str(folder),
            "threads": arguments.threads,
            "streams": arguments.streams,
            "requests": arguments.requests,
            "words": arguments.words,
            "new_tokens": arguments.new_tokens,
        }
        jobs = {name: {**job, "contestant": name.removesuffix(" again")} for name in arguments.contestants}
        rounds = take_turns(WORKER, jobs, arguments.rounds, arguments.threads)
    load = f"{arguments.streams} streams, {arguments.requests} answers of {arguments.new_tokens} tokens"
    sys.stdout.write(f"\n{arguments.shape}: {load}, {arguments.threads} threads\n\n{_table(rounds)}")
    if {WHET, ENGINE} <= rounds[0].keys():
        price = median_ratio(rounds, "seconds", WHET, ENGINE)
        sys.stdout.write(f"\nHTTP: {WHET} takes {price:.3f} times the seconds of its engine in one process\n")
    first = arguments.contestants[0]
    ratios = {name: median_ratio(rounds, "seconds", name, first) for name in rounds[0]}
    finish(arguments, {"ratios": ratios, "rounds": rounds}, ("tokenizers", "aiohttp", "fastapi", "uvicorn"))


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--contestant", dest="contestants", action="append", choices=CONTESTANTS, help="all without; the first is 1.00"
    )
    parser.add_argument("--shape", choices=("tiny", "15 M", "135 M"), default="15 M")
    parser.add_argument("--streams", type=int, default=16, help="at once")
    parser.add_argument("--requests", type=int, default=64, help="that count")
    parser.add_argument("--words", type=int, default=20, help="of a prompt")
    parser.add_argument("--new-tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--rounds", type=int, default=4, help="an even number: as often forwards as backwards")
    parser.add_argument("--threads", type=int, default=2, help="of every contestant")
    arguments = parser.parse_args()
    arguments.contestants = arguments.contestants or list(CONTESTANTS)
    if arguments.quick:
        arguments.rounds, arguments.shape, arguments.requests, arguments.new_tokens = 1, "tiny", 16, 16
    return arguments


def _table(rounds: Sequence[Round]) -> str:
    first, *_ = rounds[0]
    speed = medians(rounds, "tokens_per_s")
    rows = [
        (
            name,
            f"{speed[name]:,.0f}",
            f"{median_ratio(rounds, 'seconds', name, first):.2f}",
            f"{statistics.median(one[name]['processor_seconds'] for one in rounds):.1f}",
            *(_milliseconds(rounds, name, value) for value in ("ttft_s", "tpot_s", "client_late_s")),
        )
        for name in sorted(speed, key=lambda name: -speed[name])
    ]
    columns = (
        "contestant",
        "tokens/s",
        f"seconds / {first}'s",
        "processor s, without the client",
        "TTFT p50, ms",
        "TPOT p50, ms",
        "client late, p99, ms",
    )
    return table(columns, rows)


def _milliseconds(rounds: Sequence[Round], name: str, value: str) -> str:
    if value not in rounds[0][name]:
        return "not measured"
    return f"{1000 * statistics.median(one[name][value] for one in rounds):.1f}"


if __name__ == "__main__":
    main()
