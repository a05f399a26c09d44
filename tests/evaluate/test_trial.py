"""The trial sees an adapter without effect, an engine that answers otherwise, and held-out questions in training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from whetstone.data.example import Example, Message
from whetstone.data.split import Splits
from whetstone.evaluate.collect import Prompt, render_prompts
from whetstone.evaluate.sample import BASE, TUNED, Sample
from whetstone.evaluate.sanity import Sanity, read_sanity
from whetstone.evaluate.trial import leaked, try_models
from whetstone.model_section import Scratch
from whetstone.models.adapter import add_adapter
from whetstone.models.load import LanguageModel, end_ids, load_model
from whetstone.models.scratch import save_scratch
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=64, layers=2, heads=4, feed_forward_dim=128, context_tokens=256)
TEXTS = ["The cat sits on the mat.", "A dog runs.", "Some birds sing in the tree.", "They go home."]
EXAMPLES = [Example(f"e{n}", (Message("user", text),), (text,), text, f"g{n}") for n, text in enumerate(TEXTS)]


@pytest.fixture
def base(tmp_path: Path) -> LanguageModel:
    save_scratch(tmp_path / "model", SHAPE, TEXTS, seed=1)
    return load_model(tmp_path / "model", template="auto", dtype="float32", device=torch.device("cpu"))


def answered(base: LanguageModel, prompts: list[Prompt], folder: Path, *, wrong: int = 0) -> None:
    """Writes what the base answers, for both arms, the first answers of the tuned arm changed."""
    folder.mkdir()
    for arm in (BASE, TUNED):
        rows = []
        for number, prompt in enumerate(prompts):
            ids = torch.tensor([prompt.token_ids])
            out = base.model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
            tokens = tuple(out[0, ids.shape[1] :].tolist())
            if arm == TUNED and number < wrong:
                tokens = (tokens[0] ^ 1, *tokens[1:])
            rows.append(Sample(prompt.example.id, arm, "j", prompt.hash, len(prompt.token_ids), "", tokens, "stop"))
        (folder / f"{arm}.jsonl").write_text("".join(json.dumps(row.as_row()) + "\n" for row in rows))


def tried(base: LanguageModel, folder: Path, *, moved: bool, wrong: int = 0) -> Sanity:
    prompts = render_prompts(EXAMPLES, base.template)
    answered(base, prompts, folder, wrong=wrong)
    tuned = add_adapter(base.model, Tune(rank=2))
    if moved:
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=1e-3)
    stop_ids = sorted(base.template.stop_ids(end_ids(base.model)))
    try_models(tuned, tuned, prompts, stop_ids, folder, judgement="j", training_examples=9, leaked_ids=("e1",))
    found = read_sanity(folder)
    assert found is not None
    return found


def test_an_adapter_without_effect_moves_no_logit(base: LanguageModel, tmp_path: Path) -> None:
    found = tried(base, tmp_path / "samples", moved=False)
    assert (found.prompts, found.logit_change) == (4, 0.0)
    assert [(check.compared, check.equal) for check in found.engine] == [(4, 4), (4, 4)]


def test_an_adapter_moves_logits_and_other_answers_are_seen(base: LanguageModel, tmp_path: Path) -> None:
    found = tried(base, tmp_path / "samples", moved=True, wrong=3)
    assert found.logit_change > 0
    checks = {check.arm: (check.compared, check.equal) for check in found.engine}
    assert checks[BASE] == (4, 4)
    assert checks[TUNED][1] <= 1
    assert found.leaked == ("e1",)


def test_questions_that_training_saw_are_found() -> None:
    training = (EXAMPLES[1], replace(EXAMPLES[0], id="t", source="other", messages=(Message("user", "other"),)))
    splits = Splits(training, (), tuple(EXAMPLES))
    assert leaked(splits, ()) == ("e1",)
    assert leaked(splits, (replace(EXAMPLES[3], id="r"),)) == ("e1", "e3")
