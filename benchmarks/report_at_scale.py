"""Time and memory of scoring, comparing and rendering a large judgement: a million examples with three arms.

Run as: .venv/bin/python benchmarks/report_at_scale.py --rows 1000000

A judged run is written to a temporary folder: synthetic sentences in groups of four, answers of copy-input, base and
tuned with times and token ids, as ``whet compare`` writes them. A fresh process then does what ``whet report`` does.
Peak memory is the largest sum of the resident memory of that process and its children, sampled twenty times a second.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
from harness import benchmark_parser, finish

from whetstone.data.example import Example, Message
from whetstone.data_section import Data, GrammarSource
from whetstone.evaluate.evidence import data_hash
from whetstone.evaluate.sample import BASE, COPY_INPUT, TUNED, Sample
from whetstone.experiment import Experiment
from whetstone.judge_section import Judge, MustNotRegress
from whetstone.model_section import Model
from whetstone.report.write import write_report
from whetstone.run import Judgement, Run, WeightsRecord

ARMS = {COPY_INPUT: 0.0, BASE: 0.4, TUNED: 0.55}
QUICK_ROWS = 2000
GROUP_SIZE = 4
WORDS = ("the", "a", "cat", "dog", "house", "tree", "walks", "runs", "sees", "under", "over", "old", "new", "never")


def main() -> None:
    """Writes the run, measures in a fresh process, prints a JSON object."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many examples")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        began = time.perf_counter()
        summary = write_report(Run(arguments.measure))
        seconds = time.perf_counter() - began
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        processor_s = sum(one.ru_utime + one.ru_stime for one in used)
        took = {"seconds": round(seconds, 1), "processor_s": round(processor_s, 1)}
        sys.stdout.write(json.dumps({**took, "verdict": summary.verdict.outcome}) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = QUICK_ROWS if arguments.quick else arguments.rows
        run = write_run(Path(folder) / "run", rows)
        result = {"rows": rows, **measured(run), "report_mb": round(size_of(run.report) / 1e6, 1)}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    finish(arguments, result)


def measured(run: Run) -> dict[str, object]:
    """Renders in a process of its own, and watches its memory and that of its children."""
    command = [sys.executable, __file__, "--measure", str(run.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0

    def watch() -> None:
        nonlocal peak
        top = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, resident_bytes(top))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return {**json.loads(output.splitlines()[-1]), "peak_mb": round(peak / 1e6)}


def resident_bytes(top: psutil.Process) -> int:
    """Of a process and its children; shared pages count for each."""
    total = 0
    try:
        for process in (top, *top.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def size_of(folder: Path) -> int:
    """Of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_run(path: Path, rows: int) -> Run:
    """A judged run of synthetic rows."""
    run = Run(path)
    run.samples.mkdir(parents=True)
    with (run.samples / "examples.jsonl").open("w") as file:
        for example in examples(rows):
            file.write(json.dumps(example.as_row()) + "\n")
    judge = Judge(must_not_regress=(MustNotRegress(metric="over_edit", margin=0.02),))
    experiment = Experiment(
        name="large",
        model=Model(base="builtin:demo-base"),
        data=Data(source=GrammarSource(grammar="corrections"), prompt="Correct: {source}"),
        judge=judge,
    )
    base = WeightsRecord(origin="base", sha256="0" * 64, parameters=1)
    judgement = Judgement(
        frozen_at="2026-01-01T00:00:00+00:00",
        rule_hash=judge.fingerprint(),
        data_hash=data_hash((run.samples / "examples.jsonl").read_bytes()),
        prompts_hash="0" * 16,
        base_sha256=base.sha256,
        candidate=replace_origin(base),
        device="cpu",
        packages={},
    )
    run.begin(experiment)
    run.update(base=base, judgement=judgement)
    mark = judgement.fingerprint()
    for arm, skill in ARMS.items():
        with (run.samples / f"{arm}.jsonl").open("w") as file:
            for number, example in enumerate(examples(rows)):
                file.write(json.dumps(replace(answer(example, number, arm, skill), judgement=mark).as_row()) + "\n")
    return run


def replace_origin(base: WeightsRecord) -> WeightsRecord:
    """Other weights of the same shape."""
    return base.model_copy(update={"origin": "tuned", "sha256": "1" * 64})


def examples(rows: int) -> Iterator[Example]:
    """Sentences of six to fourteen words, a fifth of them right already."""
    draw = random.Random(0)
    for number in range(rows):
        right = " ".join(draw.choices(WORDS, k=draw.randint(6, 14)))
        source = right if number % 5 == 0 else f"{right} goed"
        yield Example(
            id=f"e{number:07d}",
            messages=(Message("user", f"Correct: {source}"),),
            references=(right, f"{right} ."),
            source=source,
            group=f"g{number // GROUP_SIZE}",
            category=f"kind-{number % 12}",
        )


def answer(example: Example, number: int, arm: str, skill: float) -> Sample:
    """Right with a probability that the group shares."""
    draw = random.Random(f"{arm} {number}")
    luck = 0.5 * random.Random(f"{arm} {number // GROUP_SIZE}").random() + 0.5 * draw.random()
    text = example.source if arm == COPY_INPUT or luck > skill else example.references[0]
    generated = arm != COPY_INPUT
    tokens = tuple(range(300, 300 + len(text.split()))) if generated else ()
    return Sample(
        example=example.id,
        arm=arm,
        judgement="",
        prompt_hash=f"{number:016x}",
        prompt_tokens=20,
        text=text,
        token_ids=tokens,
        finish_reason="stop",
        batch=number // 32,
        first_token_s=0.05 + 0.01 * draw.random() if generated else None,
        end_s=0.3 + 0.2 * draw.random() if generated else None,
        memory_bytes=1_000_000_000 if generated else None,
    )


if __name__ == "__main__":
    main()
