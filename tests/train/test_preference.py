"""DPO, ORPO and GRPO on tiny models: our ids, the papers' formulas, and that they teach what they should."""

# The callbacks of transformers are untyped here.
# mypy: disallow-subclassing-any=False

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback, set_seed

from whetstone.data.example import Example, Message
from whetstone.data.template import PLAIN, Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.train import preference_trainers
from whetstone.train.guard import Guard
from whetstone.train.preference import PreferenceRow, make_preference_rows, preference_trainer
from whetstone.train.session import Session
from whetstone.train.settings import Settings
from whetstone.tune_section import Tune

WORDS = ("red", "green", "blue", "one", "two", "three", "yes", "no")
DATA = Data(source="unused.jsonl")
CONTEXT = 80


@pytest.fixture(scope="module")
def template() -> Template:
    vocabulary = {word: place for place, word in enumerate(("<s>", "</s>", "<unk>", "\n", *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    splits = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = PLAIN
    return Template(tokenizer)


def make_model(dtype: torch.dtype = torch.float32) -> PeftModel:
    set_seed(1)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,  # a head that stays as it is must be able to say something
        bos_token_id=0,
        eos_token_id=1,
    )
    base = LlamaForCausalLM(config).to(dtype)
    return get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))


def make_examples() -> list[Example]:
    colours = [("red", "one", "two three"), ("green", "two two", "three"), ("blue", "three one one", "yes")]
    return [
        Example(f"e{place}", (Message("user", asked),), (good,), asked, asked, rejected=(bad,))
        for place, (asked, good, bad) in enumerate([*colours, ("yes", "no", "yes"), ("one red", "red", "blue")])
    ]


def tune(method: str, **changes: Any) -> Tune:
    settings = {"batch_size": 2, "accumulation": 2, "steps": 12, "learning_rate": 5e-3, "warmup_steps": 0}
    return Tune.model_validate({"method": method, **settings, **changes})


def make_rows(template: Template, settings: Tune) -> list[PreferenceRow]:
    return make_preference_rows(make_examples(), template, DATA, settings, CONTEXT).rows


@torch.no_grad()
def log_probability(model: PeftModel, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Of an answer, one sequence at a time, without padding, in float64."""
    was_training = model.training
    model.eval()
    ids = torch.tensor([[*prompt, *answer]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
    chosen = functional.log_softmax(logits, dim=-1).gather(1, torch.tensor(list(answer))[:, None])
    model.train(was_training)
    return float(chosen.sum())


def margins(model: PeftModel, rows: Sequence[PreferenceRow]) -> list[float]:
    return [
        log_probability(model, row.prompt_ids, row.chosen_ids)
        - log_probability(model, row.prompt_ids, row.rejected_ids)
        for row in rows
    ]


class Watch(TrainerCallback):
    """Has every step logged, and keeps it."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = True

    def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
        self.logs.append(dict(logs))


def make_trainer(
    model: PeftModel, rows: Sequence[PreferenceRow], template: Template, settings: Tune, *watch: TrainerCallback
) -> Any:
    """The trainer, with a guard, and without anything on disk."""
    used = Settings(
        precision="float32",
        weights_dtype=torch.float32,
        attention="sdpa",
        optimiser="adamw_torch_fused",
        compile=False,
        activation_checkpointing=False,
        quantised=False,
        double_quantisation=False,
        notes=(),
    )
    session = Session(Path("nowhere"), used, observer=print, say=print, keeps_checkpoints=False)
    trainer = preference_trainer(model, rows, template, settings, session)
    trainer.guard = Guard(settings.guard, lambda: None)
    for callback in watch:
        trainer.add_callback(callback)
    return trainer


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_the_margin_of_the_chosen_answers_grows(method: str, template: Template) -> None:
    settings, model = tune(method, learning_rate=2e-2), make_model()
    rows = make_rows(template, settings)
    before, weights = margins(model, rows), model.get_base_model().model.embed_tokens.weight.clone()
    trainer = make_trainer(model, rows, template, settings)
    trainer.train()
    after = margins(model, rows)
    assert all(new > old + 0.5 for new, old in zip(after, before, strict=True))
    assert torch.equal(model.get_base_model().model.embed_tokens.weight, weights)
    assert (trainer.state.global_step, list(model.peft_config)) == (12, ["default"])
    batches = trainer.order.batches()
    learned = [rows[place] for _ in range(12) for place in next(batches)]
    answers = sum(len(row.chosen_ids) + len(row.rejected_ids) for row in learned)
    prompts = 2 * sum(len(row.prompt_ids) for row in learned)
    assert trainer.counters.loss_tokens == {"task": answers}
    assert trainer.counters.row_tokens == prompts + answers
    assert trainer.counters.computed_tokens >= (2 if method == "dpo" else 1) * (prompts + answers)


def capture(trainer: Any) -> list[dict[str, torch.Tensor]]:
    """The batches that a trainer computes its loss of."""
    seen: list[dict[str, torch.Tensor]] = []
    original = trainer.compute_loss

    def compute_loss(model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        seen.append({name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    return seen


def test_dpo_learns_our_ids_in_our_order_with_the_loss_of_the_paper(template: Template) -> None:
    settings = tune("dpo", steps=4, accumulation=1, learning_rate=2e-2)
    model = make_model()
    rows = make_rows(template, settings)
    expected: list[float] = []

    class Reference(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            batch = [rows[place] for place in steps[state.global_step]]
            new = margins(model, batch)
            with model.disable_adapter():
                old = margins(model, batch)
            beta = settings.preference.beta
            terms = [math.log1p(math.exp(-beta * (one - other))) for one, other in zip(new, old, strict=True)]
            expected.append(sum(terms) / len(terms))

    watch = Watch()
    trainer = make_trainer(model, rows, template, settings, watch, Reference())
    batches = trainer.order.batches()
    steps = [next(batches) for _ in range(4)]
    seen = capture(trainer)
    trainer.train()
    losses = [log["loss"] for log in watch.logs if "loss" in log]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert abs(losses[-1] - math.log(2)) > 1e-2
    assert losses == pytest.approx(expected, abs=1e-4)
    for batch, places in zip(seen, steps, strict=True):
        wanted = [(rows[place].prompt_ids, rows[place].chosen_ids) for place in places]
        wanted += [(rows[place].prompt_ids, rows[place].rejected_ids) for place in places]
        for ids, mask, learned, (prompt, answer) in zip(
            batch["input_ids"], batch["attention_mask"], batch["completion_mask"], wanted, strict=True
        ):
            assert ids[mask.bool()].tolist() == [*prompt, *answer]
            assert ids[learned.bool()].tolist() == list(answer)
            assert answer[-1] == template.end_of_turn_id
    assert trainer.ref_model is None


def test_orpo_learns_our_ids_with_the_loss_of_the_paper(template: Template) -> None:
    settings = tune("orpo", steps=1, accumulation=1)
    model = make_model()
    rows = make_rows(template, settings)
    watch = Watch()
    trainer = make_trainer(model, rows, template, settings, watch)
    places = next(trainer.order.batches())
    terms = []
    for row in (rows[place] for place in places):
        chosen, rejected = (
            log_probability(model, row.prompt_ids, answer) / len(answer)
            for answer in (row.chosen_ids, row.rejected_ids)
        )
        odds = [one - math.log1p(-math.exp(one)) for one in (chosen, rejected)]
        terms.append(-chosen + settings.preference.beta * math.log1p(math.exp(odds[1] - odds[0])))
    seen = capture(trainer)
    trainer.train()
    assert watch.logs[0]["loss"] == pytest.approx(sum(terms) / len(terms), abs=1e-4)
    for side, answers in (("chosen", "chosen_ids"), ("rejected", "rejected_ids")):
        for place, ids, mask, labels in zip(
            places, *(seen[0][f"{side}_{name}"] for name in ("input_ids", "attention_mask", "labels")), strict=True
        ):
            answer = list(getattr(rows[place], answers))
            assert ids[mask.bool()].tolist() == [*rows[place].prompt_ids, *answer]
            assert labels[labels >= 0].tolist() == answer


def test_accumulated_batches_are_one_large_batch(template: Template) -> None:
    adapters = []
    for size, accumulation in ((4, 1), (2, 2)):
        settings, model = tune("dpo", steps=3, batch_size=size, accumulation=accumulation), make_model()
        make_trainer(model, make_rows(template, settings), template, settings).train()
        adapters.append([parameter for parameter in model.parameters() if parameter.requires_grad])
    for one, other in zip(*adapters, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_grpo_raises_the_reward_on_answers_to_our_ids(template: Template) -> None:
    rewards = {"functions": ("format",), "pattern": "yes.*", "generations": 8, "max_new_tokens": 4, "beta": 0.01}
    settings = tune("grpo", batch_size=16, accumulation=1, steps=25, learning_rate=2e-2, rewards=rewards)
    model, watch = make_model(), Watch()
    rows = make_rows(template, settings)
    assert [row.rejected_ids for row in rows] == [()] * 5
    trainer = make_trainer(model, rows, template, settings, watch)
    seen = capture(trainer)
    trainer.train()
    reward = [log["rewards/format/mean"] for log in watch.logs if "rewards/format/mean" in log]
    assert sum(reward[-5:]) / 5 > sum(reward[:3]) / 3 + 0.4
    assert list(model.peft_config) == ["default"]
    prompts = [row.prompt_ids for row in rows]
    for batch in seen:
        found = [ids[mask.bool()].tolist() for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
        assert all(prompt in prompts for prompt in found)
        assert all(found.count(prompt) % 8 == 0 for prompt in found)
        answers = zip(batch["completion_ids"], batch["completion_mask"], strict=True)
        for answer in (ids[mask.bool()].tolist() for ids, mask in answers):
            assert template.end_of_turn_id not in answer[:-1]
    with model.disable_adapter():
        assert log_probability(model, prompts[0], (10,)) == log_probability(make_model(), prompts[0], (10,))


def test_grpo_draws_a_step_once_for_its_micro_batches(template: Template) -> None:
    rewards = {"functions": ("exact_match",), "generations": 4, "max_new_tokens": 2}
    settings = tune("grpo", batch_size=4, accumulation=2, steps=3, rewards=rewards)
    rows = make_rows(template, settings)
    trainer = make_trainer(make_model(), rows, template, settings)
    batches = trainer.order.batches()
    steps = [next(batches) for _ in range(3)]
    seen = capture(trainer)
    trainer.train()
    assert trainer.state.global_step == 3
    for step in range(3):
        halves = seen[2 * step : 2 * step + 2]
        found = [
            ids[mask.bool()].tolist()
            for half in halves
            for ids, mask in zip(half["prompt_ids"], half["prompt_mask"], strict=True)
        ]
        assert sorted(found) == sorted([list(rows[place].prompt_ids) for place in steps[step]] * 4)


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_the_same_seed_gives_the_same_weights_and_no_file(
    method: str, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rewards = {"generations": 2, "max_new_tokens": 3}
    weights = []
    for _ in range(2):
        settings, model = tune(method, steps=2, rewards=rewards), make_model()
        make_trainer(model, make_rows(template, settings), template, settings).train()
        weights.append(torch.cat([one.flatten() for one in model.parameters() if one.requires_grad]))
    assert torch.equal(*weights)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_tokenizer_of_the_template_is_left_as_it_is(template: Template) -> None:
    settings = tune("dpo")
    make_trainer(make_model(), make_rows(template, settings), template, settings)
    assert template.tokenizer.pad_token is None


def test_every_rejected_answer_makes_a_pair_with_every_reference(template: Template) -> None:
    example = Example("e", (Message("user", "red"),), ("one", "two"), "red", "g", rejected=("yes", "no"))
    made = make_preference_rows([example], template, DATA, tune("dpo"), CONTEXT)
    assert len(made.rows) == 4
    made = make_preference_rows([example], template, DATA, tune("dpo", references="first"), CONTEXT)
    assert [row.chosen_ids for row in made.rows] == [template.answer_ids("one")] * 2


def test_what_is_too_long_stops_or_is_cut_or_is_left_out(template: Template) -> None:
    example = Example("e", (Message("user", "red"),), ("one two three",), "red", "g", rejected=("one two yes",))
    prompt = template.prompt_ids(example.messages)

    def made(room: int, policy: str, method: str = "dpo") -> tuple[int, int, int]:
        data = Data.model_validate({"source": "x", "max_tokens": len(prompt) + room, "too_long": policy})
        result = make_preference_rows([example], template, data, tune(method), CONTEXT)
        return len(result.rows), result.dropped, result.truncated

    assert made(4, "raise") == (1, 0, 0)
    with pytest.raises(UserError, match="example 'e': 7 tokens, but at most 6"):
        made(3, "raise")
    assert made(3, "drop") == (0, 1, 0)
    assert made(3, "truncate") == (1, 0, 1)
    assert made(2, "truncate") == (0, 1, 0)
    with pytest.raises(UserError, match="at most"):
        made(60, "raise", "grpo")
    assert made(60, "truncate", "grpo") == (0, 1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "dpo", "dropout": 0.1}, "tune.dropout"),
        ({"method": "grpo", "rewards": {"generations": 3}}, "tune.batch_size: 2 rows times"),
        ({"method": "grpo", "rewards": {"generations": 2, "functions": ("tests",)}}, "example 'e0': has no tests"),
        ({"method": "grpo", "rewards": {"generations": 2, "functions": ("format",), "pattern": "("}}, "pattern"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, template: Template) -> None:
    settings = tune(**changes)
    with pytest.raises(UserError, match=message):
        make_trainer(make_model(), make_rows(template, settings), template, settings)


def test_trl_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl.trainer.dpo_trainer", None)
    spec = importlib.util.spec_from_file_location("without_trl", preference_trainers.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(UserError, match=r"pip install 'whetstone\[preference\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_an_example_without_a_rejected_answer_is_named(template: Template) -> None:
    example = Example("lonely", (Message("user", "red"),), ("one",), "red", "g")
    with pytest.raises(UserError, match="example 'lonely': has no rejected answer"):
        make_preference_rows([example], template, DATA, tune("orpo"), CONTEXT)
