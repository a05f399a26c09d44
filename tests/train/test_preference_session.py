"""Preference training as a run sees it: rows on disk, checkpoints, guard, validation, and a base left as it was."""

# The callbacks of transformers are untyped here.
# mypy: disallow-subclassing-any=False

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback, set_seed

from whetstone.data.example import Example, Message
from whetstone.data.split import Splits
from whetstone.data.template import PLAIN, Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.files import read_jsonl
from whetstone.train.batch import Row
from whetstone.train.check import Checked
from whetstone.train.checkpoint import read_checkpoint
from whetstone.train.guard import Guard, TrainingStopped
from whetstone.train.order import RowOrder
from whetstone.train.preference import fit_preferences, make_preference_rows
from whetstone.train.recorder import StepMetrics
from whetstone.train.session import Session
from whetstone.train.settings import Settings
from whetstone.train.supervise import TrainingResult
from whetstone.tune_section import Tune

WORDS = ("red", "green", "blue", "one", "two", "three", "yes", "no")
CONTEXT = 80
METHODS = ("dpo", "orpo", "grpo")
STEPS = 6
SETTINGS = Settings(
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
SMALL = {"batch_size": 2, "accumulation": 2, "steps": STEPS, "learning_rate": 2e-2, "warmup_steps": 0}
REWARDS = {"functions": ("format",), "pattern": "(one|two|yes).*", "generations": 4, "max_new_tokens": 3, "beta": 0.02}

Fit = Callable[..., TrainingResult]


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


def examples() -> list[Example]:
    pairs = [("red", "one", "two three"), ("green", "two two", "three"), ("blue", "three one one", "yes")]
    pairs += [("yes", "no", "yes"), ("one red", "red", "blue")]
    return [
        Example(f"e{place}", (Message("user", asked),), (good,), asked, asked, rejected=(bad,))
        for place, (asked, good, bad) in enumerate(pairs)
    ]


def against(learned: list[Example]) -> list[Example]:
    """The opposite of what is learned, so that its loss rises."""
    return [
        replace(example, id=f"v-{example.id}", references=example.rejected, rejected=example.references)
        for example in learned
    ]


@pytest.fixture
def fit(template: Template, tmp_path: Path) -> Fit:
    """Trains in a temporary folder."""

    def run(
        model: PeftModel,
        method: str,
        *,
        folder: str = "run",
        held: list[Example] | None = None,
        data: dict[str, Any] | None = None,
        observer: Callable[[StepMetrics], None] = lambda metrics: None,
        settings: Settings = SETTINGS,
        callbacks: list[TrainerCallback] | None = None,
        resume: bool = False,
        **tune: Any,
    ) -> TrainingResult:
        values = {"method": method, **SMALL, **({"rewards": REWARDS} if method == "grpo" else {}), **tune}
        experiment = Experiment.model_validate(
            {"name": "preferred", "model": {"base": "x"}, "data": {"source": "x.jsonl", **(data or {})}, "tune": values}
        )
        checked = Checked(
            splits=Splits(tuple(examples()), tuple(held or ()), ()),
            replay=(),
            sources=(),
            template=template,
            findings=(),
            lengths=(),
            memory=None,
            context_tokens=CONTEXT,
        )
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        session = Session(path, settings, observer, print, callbacks or (), resume=resume)
        return fit_preferences(model, experiment, checked, session)

    return run


def adapter(model: PeftModel) -> torch.Tensor:
    return torch.cat([one.detach().flatten().clone() for one in model.parameters() if one.requires_grad])


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The metrics, without what a clock or a sensor says."""
    names = "step", "loss", "learning_rate", "gradient_norm", "loss_tokens_by_origin", "validation_loss", "epoch"
    return [{name: row[name] for name in names} for row in read_jsonl(folder / "metrics.jsonl")]


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_goes_on_bit_for_bit(method: str, fit: Fit, tmp_path: Path) -> None:
    options: dict[str, Any] = {"held": examples()[:3], "checkpoints": {"every": 2}}
    whole = make_model()
    result = fit(whole, method, folder="whole", **options)
    seen = []

    def interrupt(metrics: StepMetrics) -> None:
        seen.append(metrics.step)
        if metrics.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), method, folder="cut", observer=interrupt, **options)
    resumed = make_model()
    # What went before in this process must not matter.
    torch.manual_seed(99)
    np.random.seed(99)
    again = fit(
        resumed, method, folder="cut", observer=lambda metrics: seen.append(metrics.step), resume=True, **options
    )

    assert seen == [1, 2, 3, 4, 5, 5, 6]
    assert torch.equal(adapter(resumed), adapter(whole))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert not torch.equal(adapter(whole), adapter(make_model()))
    assert (again.steps, again.loss_tokens, again.final_loss) == (STEPS, result.loss_tokens, result.final_loss)
    rows = read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss_tokens"] == result.loss_tokens == result.loss_tokens_by_origin["task"]
    assert all(row["tokens_per_s"] > 0 and row["computed_tokens_per_s"] >= row["tokens_per_s"] for row in rows)
    assert [row["validation_loss"] is not None for row in rows] == [method != "grpo"] * STEPS
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {"metrics.jsonl", "checkpoints"}


@pytest.mark.parametrize("method", METHODS)
def test_the_guard_sees_each_step_with_its_examples(
    method: str, fit: Fit, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Guard, "check", lambda guard, *arguments: seen.append(arguments))

    def interrupt(metrics: StepMetrics) -> None:
        if metrics.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), method, observer=interrupt, checkpoints={"every": 2})
    # A resumed run goes on with the third step.
    del seen[2:]
    fit(make_model(), method, resume=True)
    rows = rows_of(tmp_path / "run")
    assert [step for step, *_ in seen] == [row["step"] for row in rows]
    assert [loss for _, loss, *_ in seen] == pytest.approx([row["loss"] for row in rows], abs=1e-6)
    assert [norm for *_, norm, _ in seen] == pytest.approx([row["gradient_norm"] for row in rows])
    data, tune = Data(source="x.jsonl"), Tune(method="grpo" if method == "grpo" else "dpo")
    made = make_preference_rows(examples(), template, data, tune, CONTEXT).rows
    learned = [Row(row.example.id, [*row.prompt_ids, *row.chosen_ids], len(row.prompt_ids)) for row in made]
    batches = RowOrder(learned, 1 if method == "grpo" else 4, 0).batches()
    assert [list(names) for *_, names in seen] == [
        list(dict.fromkeys(learned[place].example for place in next(batches))) for _ in range(STEPS)
    ]


@torch.no_grad()
def margin(model: PeftModel, prompt: list[int], better: list[int], worse: list[int]) -> float:
    """How much more probable one answer is than the other: one sequence at a time, without padding."""
    probabilities = []
    for answer in (better, worse):
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].double()
        chosen = functional.log_softmax(logits, dim=-1).gather(1, torch.tensor(answer)[:, None])
        probabilities.append(float(chosen.sum()))
    return probabilities[0] - probabilities[1]


def test_the_validation_loss_of_dpo_is_that_of_the_paper(fit: Fit, template: Template) -> None:
    model, held = make_model(), against(examples())
    measured: list[float | None] = []
    fit(model, "dpo", held=held, observer=lambda metrics: measured.append(metrics.validation_loss))
    terms = []
    for example in held:
        prompt = template.prompt_ids(example.messages)
        ids = prompt, template.answer_ids(example.references[0]), template.answer_ids(example.rejected[0])
        new = margin(model, *ids)
        with model.disable_adapter():
            terms.append(math.log1p(math.exp(-0.1 * (new - margin(model, *ids)))))
    assert measured[-1] == pytest.approx(sum(terms) / len(terms), abs=1e-4)
    assert sum(terms) / len(terms) > math.log(2) + 1e-3


def test_the_validation_loss_of_orpo_is_that_of_training(fit: Fit) -> None:
    """The pairs of the only step are all there are, and the learning rate of that step is next to nothing."""
    seen: list[StepMetrics] = []
    options: dict[str, Any] = {"batch_size": 5, "accumulation": 1, "steps": 1, "learning_rate": 1e-7}
    fit(make_model(), "orpo", held=examples(), observer=seen.append, **options)
    assert seen[0].validation_loss == pytest.approx(seen[0].loss, abs=1e-4)


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_measuring_changes_nothing_that_is_learned(method: str, fit: Fit) -> None:
    results = []
    for folder, held in (("without", []), ("with", examples()[:3])):
        model = make_model()
        result = fit(model, method, folder=folder, held=held)
        results.append((adapter(model).tolist(), result.loss_tokens, result.final_loss, result.notes))
    assert results[0] == results[1]


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_patience_ends_and_the_best_weights_stay(method: str, fit: Fit, tmp_path: Path) -> None:
    model, validation = make_model(), {"every": 1, "patience": 2, "keep": "best"}
    result = fit(model, method, held=against(examples()), validation=validation, steps=12)
    losses = [row["validation_loss"] for row in rows_of(tmp_path / "run")]
    best = losses.index(min(losses)) + 1
    assert result.steps == len(losses) == best + 2 < 12
    assert any("Stopped early: step" in note for note in result.notes)
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / f"step-{best:06d}").part("weights")
    assert torch.equal(adapter(model), torch.cat([value.flatten() for value in checkpoint.values()]))


@pytest.mark.parametrize("method", METHODS)
def test_a_broken_adapter_stops_before_it_is_saved(method: str, fit: Fit, tmp_path: Path) -> None:
    model = make_model()

    def plant(metrics: StepMetrics) -> None:
        if metrics.step == 3:
            next(one for one in model.parameters() if one.requires_grad).data.fill_(float("nan"))

    # GRPO cannot draw from such a model, so there the gradient breaks.
    if method == "grpo":
        options: dict[str, Any] = {"guard": {"gradient_norm": 1e-9}}
        where = "step 1: the gradient norm is"
    else:
        options = {"observer": plant, "checkpoints": {"every": 2}}
        where = "step 4: the loss is nan; example"
    with pytest.raises(TrainingStopped, match=where) as stopped:
        fit(model, method, **options)
    assert any(f"'{example.id}'" in str(stopped.value) for example in examples())
    for folder in (tmp_path / "run" / "checkpoints").glob("step-*"):
        assert all(value.isfinite().all() for value in read_checkpoint(folder).part("weights").values())


def test_answers_that_are_all_rewarded_alike_are_named(fit: Fit) -> None:
    rewards = {**REWARDS, "pattern": "(.|\\n)*", "beta": 0.0}
    with pytest.raises(TrainingStopped, match="all answers to a prompt were rewarded alike"):
        fit(make_model(), "grpo", rewards=rewards)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_weights_learn_through_a_float32_adapter(method: str, fit: Fit) -> None:
    model = make_model(torch.bfloat16)
    settings = replace(SETTINGS, precision="bfloat16", weights_dtype=torch.bfloat16)
    before = adapter(model)
    result = fit(model, method, held=examples()[:2], settings=settings, steps=3)
    assert {one.dtype for one in model.parameters() if one.requires_grad} == {torch.float32}
    assert {one.dtype for one in model.parameters() if not one.requires_grad} == {torch.bfloat16}
    assert adapter(model).isfinite().all()
    assert not torch.equal(adapter(model), before)
    assert math.isfinite(result.final_loss)


@pytest.mark.parametrize("method", METHODS)
def test_activation_checkpoints_change_memory_alone(method: str, fit: Fit) -> None:
    ends = []
    for folder in ("plain", "checkpointed"):
        model = make_model()
        if folder == "checkpointed":
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        fit(model, method, folder=folder, steps=2)
        ends.append(adapter(model))
        assert model.get_base_model().is_activation_checkpointing == (folder == "checkpointed")
    torch.testing.assert_close(*ends, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_base_is_left_as_it_was(method: str, fit: Fit) -> None:
    model = make_model()
    base = model.get_base_model()
    before = base.config.to_dict(), base.generation_config.to_dict()
    fit(model, method, steps=1)
    assert (base.config.to_dict(), base.generation_config.to_dict()) == before
    assert "forward" not in vars(base)
    assert list(model.peft_config) == ["default"]


def test_what_is_not_applied_is_noted(fit: Fit) -> None:
    replay = {"replay": {"source": "y.jsonl", "fraction": 0.1}}
    validation = {"patience": 3, "keep": "best"}
    result = fit(make_model(), "grpo", held=examples(), data=replay, validation=validation, steps=1)
    assert [note.partition(" is not applied: ")[0] for note in result.notes] == [
        "data.replay",
        "tune.validation.patience",
        "tune.validation.keep: best",
    ]
    result = fit(make_model(), "dpo", folder="dpo", validation={"every": 2}, steps=1)
    assert result.notes == ("tune.validation.every is not applied: there are no validation pairs.",)


def test_long_pairs_are_noted(fit: Fit, template: Template) -> None:
    lengths = [
        len(template.prompt_ids(one.messages))
        + max(len(template.answer_ids(text)) for text in (*one.references, *one.rejected))
        for one in examples()
    ]
    too_long = sum(length > min(lengths) for length in lengths)
    assert 0 < too_long < len(lengths)
    data = {"max_tokens": min(lengths), "too_long": "drop"}
    result = fit(make_model(), "dpo", data=data, held=examples(), steps=1)
    assert result.notes == tuple(
        f"{too_long} {part} pairs were longer than allowed and were dropped (data.too_long)."
        for part in ("training", "validation")
    )


def test_nothing_to_learn_is_refused(fit: Fit) -> None:
    with pytest.raises(UserError, match="every training row is longer"):
        fit(make_model(), "orpo", data={"max_tokens": 2, "too_long": "drop"})


class NoMemory(TrainerCallback):
    """Memory is out in the second step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def test_out_of_memory_says_what_to_lower(fit: Fit) -> None:
    with pytest.raises(UserError, match=r"step 2: out of memory with tune\.batch_size 2; lower it and raise"):
        fit(make_model(), "dpo", callbacks=[NoMemory()])
