"""Kill -9 at random moments of a judgement: the rerun keeps what was answered, and ends with the same verdict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

JUDGEMENTS = """
import hashlib, json, os, random, shutil, signal, sys, time
from pathlib import Path

import torch

from whetstone.data_section import Data, GrammarSource
from whetstone.evaluate.judge import judge
from whetstone.experiment import Experiment
from whetstone.judge_section import Generation, Judge
from whetstone.model_section import Model
from whetstone.models.adapter import add_adapter
from whetstone.report.write import write_report
from whetstone.run import Run
from whetstone.train.tune import load_base
from whetstone.data.load import load_splits
from whetstone.tune_section import Tune

root, kills, examples, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
(root / "asked.yaml").write_text(
    "about: A try.\\nmetrics: [exact_match]\\ncases:\\n"
    + "".join(f"- {{prompt: 'Copy: word {n} .', references: ['word {n} .']}}\\n" for n in range(12))
)
(root / "texts.yaml").write_text("about: T.\\nmetrics: [truncated]\\ncases: [{text: Some words .}, {text: More .}]\\n")
experiment = Experiment(
    name="run",
    model=Model(base="builtin:demo-base"),
    data=Data(source=GrammarSource(grammar="corrections", train=40, validation=2, test=examples), prompt="{source}"),
    tune=Tune(rank=4),
    judge=Judge(
        generation=Generation(max_new_tokens=24, batch_size=4, temperature=0.7, repeats=2),
        suites=(str(root / "asked.yaml"), str(root / "texts.yaml")),
        few_shot=1,
    ),
)
adapter = root / "adapter"


def compare(folder):
    run = Run(folder)
    with run.lock():
        run.begin(experiment)
        judge(run, experiment, adapter, fresh=False, progress=lambda done, total: None)
        write_report(run)


def forked(folder, kill_after_s=None):
    child = os.fork()
    if child == 0:
        try:
            compare(folder)
        finally:
            os._exit(0)
    began_s = time.monotonic()
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic() - began_s


def answers(folder):
    # What was answered; not how fast, or in how much memory.
    timed = ("first_token_s", "end_s", "memory_bytes")
    return {
        str(path.relative_to(folder)): [
            {name: value for name, value in json.loads(line).items() if name not in timed}
            for line in path.read_text().splitlines() if line.endswith("}")
        ]
        for path in sorted((folder / "samples").rglob("*.jsonl"))
    }


def verdict(folder):
    report = json.loads((folder / "report" / "report.json").read_text())
    scores = {name: suite["arms"] for name, suite in report["suites"].items()}
    return [report["verdict"], report["gates"], report["arms"], scores]


base = load_base(Run(root / "whole"), experiment, load_splits(experiment.data))
torch.manual_seed(0)
tuned = add_adapter(base.model, experiment.tune)
for name, parameter in tuned.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.05)
tuned.save_pretrained(adapter)
whole, killed = root / "whole", root / "killed"
took_s = forked(whole)
expected, expected_verdict = answers(whole), verdict(whole)
moments, equal, interrupted, kept = random.Random(seed), 0, 0, 0
for number in range(kills):
    shutil.rmtree(killed, ignore_errors=True)
    forked(killed, moments.uniform(0.1 * took_s, took_s))
    interrupted += not (killed / "report" / "index.html").exists()
    before = answers(killed) if (killed / "samples").exists() else {}
    forked(killed)
    after = answers(killed)
    # Rows of whole batches, with their own times, are the ones that were there.
    kept += all(after[name][: len(rows) // 4 * 4] == rows[: len(rows) // 4 * 4] for name, rows in before.items())
    equal += after == expected and verdict(killed) == expected_verdict
print(json.dumps({"kills": kills, "interrupted": interrupted, "equal": equal, "kept": kept, "took_s": took_s}))
"""


def _killed(folder: Path, kills: int, examples: int) -> dict[str, float]:
    command = [sys.executable, "-c", JUDGEMENTS, str(folder), str(kills), str(examples), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_judgement_ends_with_the_verdict_of_the_one_that_was_not_killed(tmp_path: Path) -> None:
    result = _killed(tmp_path, 1, 12)
    assert result["equal"] == result["kept"] == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_a_judgement(tmp_path: Path) -> None:
    result = _killed(tmp_path, 20, 100)
    assert result["equal"] == result["kept"] == 20
    assert result["interrupted"] >= 12
