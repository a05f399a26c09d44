"""Measures contestants side by side: each run in a process of its own, one after the other in turns.

Notable: a machine is seldom as fast at ten o'clock as at eleven, so contestants run A B A B and every other round runs
backwards (B A); the ratio is taken within each round and its median over the rounds is what is reported. One contestant
runs twice in each round: the ratio of the two is what the machine alone makes of equal work. Processor time stands
beside wall time, since it hardly changes when other processes take the cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from whetstone.run import Hardware, installed_packages

__all__ = ["Round", "benchmark_parser", "finish", "median_ratio", "medians", "run_worker", "table", "take_turns"]

Result = dict[str, Any]
"""What a worker printed: numbers by name, ``seconds`` among them."""

Round = dict[str, Result]
"""The result of every contestant, by name, from one round."""


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows what all benchmarks take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="less than a minute, to see that all of it works")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON that holds the ratios")
    return parser


def run_worker(worker: Path, specification: Mapping[str, object], threads: int) -> Result:
    """Runs a worker in a fresh process and reads the JSON object in its last line.

    Args:
        worker: A script that takes one JSON object as its argument.
        specification: That object.
        threads: What OpenMP may use.

    Raises:
        RuntimeError: The worker failed; the end of what it wrote is in the message.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}
    command = [sys.executable, str(worker), json.dumps(specification)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{worker.name} {command[-1]} failed:\n{done.stderr[-3000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def take_turns(worker: Path, contestants: Mapping[str, Mapping[str, object]], rounds: int, threads: int) -> list[Round]:
    """Runs all contestants in each round, the first first and the last first by turns.

    Args:
        worker: The script that runs any of them.
        contestants: Names and specifications; the number of the round is added to each as ``seed``.
        rounds: How often.
        threads: Of each process.
    """
    names = list(contestants)
    measured = []
    for number in range(rounds):
        order = names if number % 2 == 0 else names[::-1]
        results = {}
        for name in order:
            results[name] = run_worker(worker, {**contestants[name], "seed": number}, threads)
            note = f"round {number + 1} of {rounds}, {name}: {results[name]['seconds']:.2f} s\n"
            sys.stderr.write(note)
        measured.append({name: results[name] for name in names})
    return measured


def medians(rounds: Sequence[Round], value: str) -> dict[str, float]:
    """The median over the rounds of one number, by contestant."""
    return {name: statistics.median(one[name][value] for one in rounds) for name in rounds[0]}


def median_ratio(rounds: Sequence[Round], value: str, over: str, under: str) -> float:
    """The median over the rounds of the ratio of two contestants within a round."""
    return float(statistics.median(one[over][value] / one[under][value] for one in rounds))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def finish(arguments: argparse.Namespace, result: Mapping[str, object], packages: Sequence[str] = ()) -> None:
    """Says on what was measured, and ends with the line of JSON where it is asked for.

    Args:
        arguments: Of :func:`benchmark_parser`.
        result: What the line of JSON holds besides the machine.
        packages: Whose versions matter besides those of every run.
    """
    hardware = Hardware.here()
    versions = {**installed_packages(), **{name: version(name) for name in packages}}
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    sys.stdout.write(
        f"\n{hardware.processor}, {hardware.cores} cores, {hardware.memory_bytes / 1e9:.0f} GB, {hardware.system}, "
        f"Python {hardware.python}, {named}; load {os.getloadavg()[0]:.1f}\n"
    )
    if arguments.json:
        machine = {**hardware.model_dump(), "packages": versions}
        sys.stdout.write(json.dumps({**result, "quick": arguments.quick, "machine": machine}) + "\n")
