"""Runs that were really judged: of a tiny model that was taught to end its answers early.

Greedy, it learned to, and the verdict is SHIP; drawn from what it holds likely, it goes on like its base.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from whetstone.data.example import Message
from whetstone.data_section import Data, FilesSource
from whetstone.evaluate.judge import judge
from whetstone.experiment import Experiment
from whetstone.judge_section import Generation, Judge, MustImprove
from whetstone.model_section import Model, Scratch
from whetstone.models.adapter import add_adapter
from whetstone.models.fingerprint import record_weights
from whetstone.models.load import load_template, load_weights
from whetstone.models.scratch import save_scratch
from whetstone.run import Run, Tuning
from whetstone.serve_section import Serve
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=32, layers=2, heads=2, feed_forward_dim=64, context_tokens=128)
PLACES = ("at home", "in town", "by the sea", "on the hill", "in the garden", "at the station")
THINGS = ("cat", "dog", "bird", "horse", "child")
ASKED = [f"Where is the {thing}, {place}?" for place in PLACES for thing in THINGS]


@dataclass(frozen=True)
class Shop:
    """A folder with a base and runs.

    Attributes:
        runs: ``greedy`` was judged SHIP and ``drawn`` INCONCLUSIVE, with the same adapter; ``tuned`` was not judged.
        base: What they were tuned from.
    """

    runs: Path
    base: Path

    def run(self, name: str) -> Run:
        return Run(self.runs / name)

    def edit_rows(self, name: str, arm: str, change: Callable[[int, dict[str, Any]], None]) -> None:
        """Has rows say something else than they did."""
        path = self.run(name).samples / f"{arm}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for index, row in enumerate(rows):
            change(index, row)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def judged_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Made once; tests read it, and change copies."""
    # For layers of 32 columns, threads wait for each other longer than they compute.
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shop")
    base, runs = folder / "base", folder / "runs"
    save_scratch(base, SHAPE, ASKED, seed=1)
    _write(folder / "train.jsonl", ASKED[:3])
    _write(folder / "test.jsonl", ASKED[3:])
    greedy = Generation(max_new_tokens=6, batch_size=5)
    drawn = Generation(max_new_tokens=6, batch_size=3, temperature=0.8, top_p=0.9, repeats=2, seed=3)
    for name, generation in (("tuned", greedy), ("drawn", drawn), ("greedy", greedy)):
        experiment = _experiment(name, folder, base, generation)
        run = Run(runs / name)
        run.begin(experiment)
        if name == "tuned":
            _tune(run, base)
        else:
            _tuned_as(run, Run(runs / "tuned"))
            with run.lock():
                judge(run, experiment, None, fresh=False, progress=lambda done, total: None)
    return Shop(runs, base)


@pytest.fixture
def shop(judged_shop: Shop, tmp_path: Path) -> Shop:
    """A copy that may be changed."""
    shutil.copytree(judged_shop.runs, tmp_path / "runs")
    return Shop(tmp_path / "runs", judged_shop.base)


def _write(path: Path, asked: list[str]) -> None:
    path.write_text("".join(json.dumps({"prompt": text, "completion": "Here."}) + "\n" for text in asked))


def _experiment(name: str, folder: Path, base: Path, generation: Generation) -> Experiment:
    return Experiment(
        name=name,
        model=Model(base=str(base)),
        data=Data(
            source=FilesSource(train=str(folder / "train.jsonl"), test=str(folder / "test.jsonl")),
            max_tokens=SHAPE.context_tokens,
            system="Answer in a word.",
        ),
        tune=Tune(rank=4),
        judge=Judge(generation=generation, few_shot=0, must_improve=(MustImprove(metric="truncated"),)),
        serve=Serve.model_validate({"validate": {"max_characters": 99}}),
    )


def _tune(run: Run, base: Path) -> None:
    """Teaches an adapter the one answer: a second of training."""
    template, _ = load_template(base, "auto")
    torch.manual_seed(0)
    model = add_adapter(load_weights(base, dtype="float32", device=torch.device("cpu")), Tune(rank=4))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    answer = template.answer_ids("Here.")
    questions = [(Message("system", "Answer in a word."), Message("user", text)) for text in ASKED[:3]]
    prompts = template.prompt_ids_many(questions)
    for step in range(60):
        ids = torch.tensor([prompts[step % 3] + answer])
        logits = model(ids).logits[0, -len(answer) - 1 : -1]
        optimiser.zero_grad()
        cross_entropy(logits, torch.tensor(answer)).backward()
        optimiser.step()
    model.save_pretrained(run.weights("adapter"))
    template.tokenizer.save_pretrained(run.weights("adapter"))
    tuning = Tuning(
        finished_at="2026-01-12T08:13:55+00:00",
        duration_s=1.0,
        steps=60,
        loss_tokens=1,
        final_loss=0.1,
        peak_memory_bytes=1,
        device="cpu",
        template_hash=template.hash,
        tuned=record_weights("run", run.weights("adapter"), model),
    )
    run.update(tuning=tuning)


def _tuned_as(run: Run, other: Run) -> None:
    shutil.copytree(other.weights("adapter"), run.weights("adapter"))
    run.update(tuning=other.manifest().tuning)
