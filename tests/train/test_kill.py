"""Kill -9 at random moments of a run: the resumed run ends with the same adapter, bit for bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = """
import hashlib, json, os, random, shutil, signal, sys, time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from whetstone.train.batch import Row
from whetstone.train.order import RowOrder
from whetstone.train.session import Session
from whetstone.train.settings import Settings
from whetstone.train.trainer import fit
from whetstone.tune_section import Checkpoints, Tune

root, kills, steps, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(1)
ROWS = [
    Row(f"{n // 2}", tuple(torch.randint(1, 50, (6 + n % 7,), generator=generator).tolist()), 3) for n in range(48)
]
SETTINGS = Settings("bfloat16", torch.bfloat16, "sdpa", "adamw_torch_fused", False, False, False, False, ())
TUNE = Tune(steps=steps, batch_size=4, dropout=0.1, learning_rate=1e-2, checkpoints=Checkpoints(every=7))


def run(folder, resume):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=2, max_position_embeddings=64, pad_token_id=0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    options = LoraConfig(r=4, lora_dropout=TUNE.dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, options).train()
    session = Session(folder, SETTINGS, lambda metrics: None, lambda line: None, resume=resume)
    fit(model, RowOrder(ROWS, 4, 0), ROWS[:6], TUNE, session)
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if weight.requires_grad:
            digest.update(weight.detach().numpy().tobytes())
    (folder / "digest").write_text(digest.hexdigest())


def forked(folder, resume, kill_after_s=None):
    child = os.fork()
    if child == 0:
        try:
            run(folder, resume)
        finally:
            os._exit(0)
    began_s = time.monotonic()
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic() - began_s


def fresh(name):
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


whole = fresh("whole")
took_s = forked(whole, False)
expected, rows = (whole / "digest").read_text(), (whole / "metrics.jsonl").read_text()
moments, equal, interrupted = random.Random(seed), 0, 0
for number in range(kills):
    folder = fresh("killed")
    forked(folder, False, moments.uniform(0, took_s))
    interrupted += not (folder / "digest").exists()
    (folder / "digest").unlink(missing_ok=True)
    forked(folder, True)
    steps_seen = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    same_rows = steps_seen == [json.loads(line)["step"] for line in rows.splitlines()]
    equal += same_rows and (folder / "digest").exists() and (folder / "digest").read_text() == expected
print(json.dumps({"kills": kills, "interrupted": interrupted, "equal": equal, "took_s": took_s}))
"""


def _killed(folder: Path, kills: int, steps: int) -> dict[str, float]:
    command = [sys.executable, "-c", RUNS, str(folder), str(kills), str(steps), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_killed_run_ends_with_the_adapter_of_the_run_that_was_not_killed(tmp_path: Path) -> None:
    result = _killed(tmp_path, 3, 30)
    assert result["equal"] == 3
    assert result["interrupted"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_of_two_hundred_steps(tmp_path: Path) -> None:
    result = _killed(tmp_path, 50, 200)
    assert result["equal"] == 50
    assert result["interrupted"] >= 40
