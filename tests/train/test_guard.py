"""The guard on made-up curves, and on real training that was asked to do the impossible."""

import json
import math
import random
import re
from collections.abc import Iterator

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from whetstone import tune_section
from whetstone.errors import UserError
from whetstone.train.guard import FrozenAdapter, Guard, TrainingStopped, require_loss_tokens

EXAMPLES = ("a", "b", "a", "c", "d", "e")
PROBE = (5, 6, 7, 8, 9)


def guard(checkpoint: str | None = None, **settings: float) -> Guard:
    return Guard(tune_section.Guard.model_validate(settings), lambda: checkpoint)


def feed(watched: Guard, losses: list[float], first: int = 1) -> int | None:
    """The step that the guard stopped at."""
    for step, loss in enumerate(losses, first):
        try:
            watched.check(step, loss, 1.0, EXAMPLES)
        except TrainingStopped as stopped:
            assert f"step {step}:" in str(stopped)
            return step
    return None


def noise(seed: int, steps: int, level: float, spread: float) -> list[float]:
    """Losses of single hard and easy examples: log-normal round a level."""
    draw = random.Random(seed)
    return [level * draw.lognormvariate(0, spread) for _ in range(steps)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stops_at_once_and_says_where(value: float) -> None:
    with pytest.raises(TrainingStopped) as stopped:
        guard("checkpoints/10").check(12, value, 1.0, EXAMPLES)
    line = str(stopped.value)
    assert re.match(r"step 12: the loss is -?(nan|inf); examples 'a', 'b', 'c' and 2 more; ", line)
    assert "checkpoints/10" in line
    assert "whet tune --resume" in line
    assert "tune.learning_rate" in line
    assert "\n" not in line
    with pytest.raises(TrainingStopped, match=r"step 3: the gradient norm is .*example 'a'; no checkpoint yet") as norm:
        guard().check(3, 2.0, value, ["a"])
    assert "--resume" not in str(norm.value)


def test_an_exploding_gradient_stops_and_a_large_one_does_not() -> None:
    watched = guard()
    watched.check(1, 2.0, 9999.0, EXAMPLES)
    with pytest.raises(
        TrainingStopped, match=r"gradient norm is 1\.001e\+04, above 10000 .*tune\.guard\.gradient_norm"
    ):
        watched.check(2, 2.0, 10_010.0, EXAMPLES)


def test_three_spikes_in_a_row_stop_and_two_do_not() -> None:
    usual = [1.0] * 30
    assert feed(guard(), [*usual, 9, 9, 1, 9, 9, 1]) is None
    assert feed(guard(), [*usual, 9, 9, 9]) == 33
    assert feed(guard(), [*usual, 3.9, 3.9, 3.9]) is None
    assert feed(guard(spike=2.5), [*usual, 3.9, 3.9, 3.9]) == 33
    assert feed(guard(spikes=1), [*usual, 9]) == 31


def test_spikes_stay_out_of_their_own_median() -> None:
    """Else the first spikes after a short history would excuse those that follow."""
    assert feed(guard(), [4.0, 400.0, 900.0, 800.0]) == 4
    assert feed(guard(spikes=15), [1.0] * 20 + [50.0] * 15) == 35


def test_spikes_that_passed_belong_to_the_median() -> None:
    assert feed(guard(), [1.0] * 20 + [9.0, 9.0, 1.0] * 10 + [9.0] * 40) is None


def test_a_collapse_from_a_high_loss_is_seen_although_it_is_no_multiple() -> None:
    assert feed(guard(), [3.0] * 10 + [8.0] * 3) == 13
    assert feed(guard(), [3.0] * 10 + [6.5] * 3) is None
    assert feed(guard(spike=6), [3.0] * 10 + [8.0] * 3) is None


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_no_spike(seed: int) -> None:
    """Memorised rows, and ordinary ones learned one at a time."""
    assert feed(guard(), noise(seed, 4000, 0.001, 2.0)) is None
    assert feed(guard(), noise(seed, 4000, 1.5, 0.6)) is None
    assert feed(guard(), [0.1, 2.5, 3.0, 2.2, *noise(seed, 100, 2.0, 0.3)]) is None
    assert feed(guard(), [0.0] * 50 + [1.9] * 50) is None
    assert feed(guard(), noise(seed, 50, 0.001, 2.0) + [8.0] * 3) == 53


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_where_spikes_are_usual_it_takes_more_of_them(share: float) -> None:
    """Steps of one row: most are known by heart, some are replayed and cost what they always did."""
    draw = random.Random(0)
    shares = [share * min(1.0, step / 500) for step in range(2000)]  # learning by heart takes its time
    mixed = [draw.lognormvariate(1, 0.3) if draw.random() < now else 0.01 for now in shares]
    stopped = feed(guard(), mixed + [9.0] * 40)
    assert stopped is not None
    assert 2003 < stopped < 2020


def test_losses_below_zero_are_watched_too() -> None:
    """Those of preference and reward methods may be."""
    losses = [random.Random(1).uniform(-0.3, 0.3) for _ in range(100)]
    assert feed(guard(), losses) is None
    assert feed(guard(), [*losses, 30.0, 30.0, 30.0]) == 103


def test_a_gradient_of_zero_stops_unless_there_is_nothing_to_learn() -> None:
    watched = guard()
    for step in range(1, 20):
        watched.check(step, 0.0, 0.0, EXAMPLES)
    for step, norm in enumerate((0.0, 0.0, 0.1, 0.0, 0.0), 20):
        watched.check(step, 1.5, norm, EXAMPLES)
    assert not watched.calm
    with pytest.raises(TrainingStopped, match="step 25: the gradient was exactly zero 3 steps in a row"):
        watched.check(25, 1.5, 0.0, EXAMPLES)


@pytest.mark.parametrize("cut", range(1, 34))
def test_a_resumed_guard_stops_where_the_first_would_have(cut: int) -> None:
    losses = [1.0, 9.0, *noise(3, 29, 1.0, 0.2), 9.0, 9.0, 9.0]
    assert feed(guard(), losses) == 34
    before, after = guard(), guard()
    assert feed(before, losses[:cut]) is None
    assert before.calm == (cut not in (2, 32, 33))
    after.restore(json.loads(json.dumps(before.state(), allow_nan=False)))
    assert after.state() == before.state()
    assert feed(after, losses[cut:], cut + 1) == 34


def test_a_resumed_guard_knows_how_usual_spikes_are() -> None:
    watched, resumed = guard(), guard()
    assert feed(watched, [1.0, 1.0, 1.0, 9.0] * 50) is None
    resumed.restore(json.loads(json.dumps(watched.state())))
    usual = feed(watched, [9.0] * 40)
    assert usual is not None
    assert usual > 3
    assert feed(resumed, [9.0] * 40) == usual


def test_a_step_in_which_nothing_is_learned_is_refused() -> None:
    require_loss_tokens(1, EXAMPLES, 3)
    with pytest.raises(UserError, match=r"step 3: no token is learned.*'a', 'b', 'c' and 2 more"):
        require_loss_tokens(0, EXAMPLES, 3)
    with pytest.raises(UserError, match=r"the whole run: no token is learned.*example 'x'"):
        require_loss_tokens(0, ["x"])


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).train()


def adapted(model: PreTrainedModel, targets: str | list[str] = "all-linear", *, dora: bool = False) -> PeftModel:
    return get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_dora=dora, task_type="CAUSAL_LM")
    )


def train(model: PreTrainedModel, learning_rate: float, steps: int, warmup: int = 0) -> Iterator[tuple[float, float]]:
    """A plain loop; gives loss and gradient norm of every step before its optimiser step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    rows = torch.randint(1, 256, (8, 12), generator=torch.Generator().manual_seed(1))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = learning_rate * min(1.0, step / warmup if warmup else 1.0)
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        yield loss.item(), nn.utils.clip_grad_norm_(trained, 1.0).item()
        optimiser.step()
        optimiser.zero_grad()


@pytest.fixture(scope="module")
def knowing() -> dict[str, torch.Tensor]:
    """The weights of a model that has something to lose."""
    model = llama()
    *_, (loss, _) = train(model, 1e-2, 60)
    assert loss < 0.5
    return dict(model.state_dict())


@pytest.mark.parametrize("method", ["full", "lora", "dora"])
@pytest.mark.parametrize("learning_rate", [1e4, 10.0])
@pytest.mark.parametrize("warmup", [0, 2])
def test_an_absurd_learning_rate_ends_within_a_few_steps(
    knowing: dict[str, torch.Tensor], method: str, learning_rate: float, warmup: int
) -> None:
    model: PreTrainedModel = llama()
    model.load_state_dict(knowing)
    if method != "full":
        model = adapted(model, dora=method == "dora")
    watched, stopped = guard(), None
    for step, (loss, norm) in enumerate(train(model, learning_rate, 10, warmup), 1):
        try:
            watched.check(step, loss, norm, EXAMPLES)
        except TrainingStopped as error:
            stopped = step, str(error)
            break
    assert stopped is not None
    assert stopped[0] <= 4 + warmup
    assert "tune.learning_rate" in stopped[1]


@pytest.mark.parametrize("lora", [True, False])
def test_new_weights_end_at_an_absurd_rate_too(lora: bool) -> None:
    """Their loss is that of a guess from the beginning, so only the gradient shows it."""
    model: PreTrainedModel = adapted(llama()) if lora else llama()
    watched = guard()
    with pytest.raises(TrainingStopped, match=r"step [3-6]: the gradient was exactly zero"):
        for step, (loss, norm) in enumerate(train(model, 1e4, 10), 1):
            watched.check(step, loss, norm, EXAMPLES)


def test_good_training_is_left_alone() -> None:
    watched = guard()
    for step, (loss, norm) in enumerate(train(llama(), 1e-2, 60), 1):
        watched.check(step, loss, norm, EXAMPLES)
    assert watched.calm


def made(method: str) -> PreTrainedModel:
    return llama() if method == "full" else adapted(llama(), dora=method == "dora")


@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_training_that_changes_the_logits_passes(method: str) -> None:
    model = made(method)
    frozen = FrozenAdapter(model, PROBE, 3)
    for step, _ in enumerate(train(model, 1e-6, 4)):
        frozen.check(step)  # after `step` optimiser steps
    frozen.check(4, last=True)
    assert model.training


@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_a_learning_rate_of_zero_is_found(method: str) -> None:
    model = made(method)
    frozen = FrozenAdapter(model, PROBE, 3)
    list(train(model, 0.0, 3))
    frozen.check(2)
    with pytest.raises(TrainingStopped, match=r"step 3: the logits are still.*no trained weight.*learning rate is 0"):
        frozen.check(3)
    frozen.check(4)
    with pytest.raises(TrainingStopped, match="step 4: the logits are still"):
        frozen.check(4, last=True)


def test_an_adapter_that_is_put_out_of_use_is_found() -> None:
    model = adapted(llama())
    frozen = FrozenAdapter(model, PROBE, 2)
    list(train(model, 1e-2, 2))
    with model.disable_adapter(), pytest.raises(TrainingStopped, match=r"trained weights have changed.*disabled"):
        frozen.check(2)


def test_one_small_step_in_bfloat16_is_seen() -> None:
    """A long warm-up changes weights by little, and the logits of bfloat16 have eight bits."""
    model = adapted(llama().to(torch.bfloat16))
    frozen = FrozenAdapter(model, tuple(range(5, 37)), 2)
    before = frozen.state()["logits"]
    list(train(model, 1e-5, 2))
    frozen.check(2)
    assert FrozenAdapter(model, tuple(range(5, 37)), 2).state()["logits"] != before


def test_a_target_that_the_forward_does_not_use_is_found_before_the_first_step() -> None:
    model = llama()
    model.model.layers[0].add_module("spare", nn.Linear(32, 32))
    with pytest.raises(TrainingStopped, match=r"before the first step: .*bears on the logits.*tune\.targets"):
        FrozenAdapter(adapted(model, ["spare"]), PROBE, 3)


def test_no_gradient_anywhere_is_found_before_the_first_step() -> None:
    with pytest.raises(TrainingStopped, match="before the first step: no parameter requires a gradient"):
        FrozenAdapter(llama().requires_grad_(False), PROBE, 3)


def test_the_probe_draws_nothing_and_a_resumed_run_is_compared_with_its_start() -> None:
    model = adapted(llama())
    drawn = torch.get_rng_state()
    first = FrozenAdapter(model, PROBE, 3)
    assert torch.equal(drawn, torch.get_rng_state())
    list(train(model, 1e-3, 2))
    resumed = FrozenAdapter(model, PROBE, 3)
    resumed.restore(json.loads(json.dumps(first.state())))
    resumed.check(2, last=True)
    with pytest.raises(TrainingStopped, match="step 2"):
        FrozenAdapter(model, PROBE, 3).check(2, last=True)
