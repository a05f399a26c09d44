"""Time and memory of ``whet check`` on a large file, and what of the planted duplicates is found.

Run as: .venv/bin/python benchmarks/check_at_scale.py --rows 200000

Rows of about 500 bytes are written to a temporary folder: words from a seeded vocabulary, the k-th most frequent used
in proportion to 1/k (Zipf's law). One per cent of the rows repeat another row with one word changed, half a per cent
repeat one exactly. All checks then run in a fresh process, whose peak resident memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import benchmark_parser, finish

from whetstone.data.split import Splits
from whetstone.data_section import Data
from whetstone.experiment import Experiment
from whetstone.model_section import Model
from whetstone.models.load import BUILTIN_BASE
from whetstone.train.check import check

WORDS = 20_000
PROMPT_WORDS = 45
RESPONSE_WORDS = 20
CHUNK_ROWS = 1000
NEAR_SHARE = 0.01
EXACT_SHARE = 0.005


QUICK_ROWS = 4000


def main() -> None:
    """Writes the rows, measures in a fresh process, prints a JSON object."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="how many rows to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=BUILTIN_BASE, help="the model whose template and tokenizer are used")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        sys.stdout.write(json.dumps(measure(arguments.measure, arguments.model)) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for row in synthetic_rows(QUICK_ROWS if arguments.quick else arguments.rows, arguments.seed):
                file.write(json.dumps(row) + "\n")
        command = [sys.executable, __file__, "--measure", str(path), "--model", arguments.model]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(output.splitlines()[-1])
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    found = {code: result["found"].get(code, 0) / count for code, count in result["planted"].items() if count}
    finish(arguments, {"ratios": {f"found of planted: {code}": share for code, share in found.items()}, **result})


def synthetic_rows(count: int, seed: int) -> Iterator[dict[str, str]]:
    """Prompt and response rows; the id of a planted row says which row it repeats."""
    random = np.random.default_rng(seed)
    words = _vocabulary(random)
    share = 1 / np.arange(1, WORDS + 1)
    share /= share.sum()
    near, exact = round(count * NEAR_SHARE), round(count * EXACT_SHARE)
    for start in range(0, count - near - exact, CHUNK_ROWS):
        size = min(CHUNK_ROWS, count - near - exact - start)
        drawn = random.choice(WORDS, size=(size, PROMPT_WORDS + RESPONSE_WORDS), p=share)
        for number, row in enumerate(drawn, start):
            text = [words[index] for index in row]
            prompt, response = text[:PROMPT_WORDS], text[PROMPT_WORDS:]
            yield {"id": f"row-{number}", "prompt": " ".join(prompt), "response": " ".join(response)}
            if number < exact:
                yield {"id": f"exact-{number}", "prompt": " ".join(prompt), "response": " ".join(response)}
            elif number < exact + near:
                prompt[int(random.integers(PROMPT_WORDS))] = "elsewhere"
                yield {"id": f"near-{number}", "prompt": " ".join(prompt), "response": " ".join(response)}


def _vocabulary(random: np.random.Generator) -> list[str]:
    letters = np.array(list("etaoinshrdlcumwfgypbvkjxqz"))
    weights = 1 / np.arange(3, 29)
    return [
        "".join(random.choice(letters, size=random.integers(2, 11), p=weights / weights.sum())) for _ in range(WORDS)
    ]


def measure(path: Path, model: str) -> dict[str, object]:
    """Makes every check of ``whet check`` (without the speed probe) on one file."""
    experiment = Experiment(
        name="at-scale", model=Model(base=model), data=Data(source=str(path), max_tokens=1024, too_long="drop")
    )
    started_s, imported_bytes = time.perf_counter(), _peak_bytes()
    stages: dict[str, tuple[float, int]] = {}

    def say(stage: str) -> None:
        stages[stage] = time.perf_counter(), _peak_bytes()

    checked = check(experiment, say)
    say("end")
    times = [began for began, _ in stages.values()]
    peaks = {"imports": imported_bytes, **{stage: peak for stage, (_, peak) in stages.items()}}
    return {
        "rows": sum(checked.splits.counts().values()),
        "file_bytes": path.stat().st_size,
        "tokens": sum(part.tokens for part in checked.lengths),
        "seconds": {
            stage: round(after - before, 2) for stage, before, after in zip(stages, times, times[1:], strict=False)
        },
        "seconds_in_all": round(times[-1] - started_s, 2),
        "processor_seconds": round(time.process_time(), 2),
        "peak_megabytes_when_it_began": {stage: peak // 2**20 for stage, peak in peaks.items()},
        "planted": planted(checked.splits),
        "found": {finding.code: finding.count for finding in checked.findings},
    }


def planted(splits: Splits) -> dict[str, int]:
    """What of the planted duplicates can be found, given where the split put them."""
    parts = {example.id: name for name, part in splits.parts().items() for example in part}
    across = within = 0
    for name, part in parts.items():
        kind, number = name.split("-")
        original = parts[f"row-{number}"]
        if kind == "near" and "train" in (part, original):
            within += 2 if part == original else 0
            across += part != original
    exact = sum(name.startswith("exact-") for name in parts)
    return {"exact-duplicate": exact, "near-duplicate-across-splits": across, "near-duplicate": within}


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
