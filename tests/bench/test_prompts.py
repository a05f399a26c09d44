"""What is asked."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from whetstone.bench.client import Outcome
from whetstone.bench.prompts import MadeUpPrompts, file_prompts, fitted, held_out_prompts
from whetstone.data.prompts import Prompt
from whetstone.errors import UserError
from whetstone.run import Run


def words(prompt: Prompt) -> int:
    return len(prompt.messages[-1].content.split())


def counting(count: Callable[[int], int | None]) -> Callable[[Prompt], object]:
    async def ask(prompt: Prompt) -> Outcome:
        return Outcome(0.0, 0.0, "ok", True, prompt_tokens=count(words(prompt)))

    return ask


@pytest.mark.parametrize(("per_word", "template"), [(1.0, 0), (1.3, 25), (2.5, 7)])
@pytest.mark.parametrize("tokens", [60, 512, 4000])
def test_made_up_prompts_have_the_length_that_was_asked_for(per_word: float, template: int, tokens: int) -> None:
    def count(words: int) -> int:
        return round(per_word * words) + template

    made = asyncio.run(fitted(tokens, 0, counting(count)))  # type: ignore[arg-type]
    assert count(words(made.prompt(3))) == pytest.approx(tokens, abs=0.03 * tokens + 2)
    assert made.about == f"made up, about {tokens} tokens"


def test_without_a_count_a_word_is_a_token() -> None:
    made = asyncio.run(fitted(100, 0, counting(lambda words: None)))  # type: ignore[arg-type]
    assert words(made.prompt(0)) == 101
    assert "counts no tokens" in made.about


def test_a_template_that_leaves_no_room() -> None:
    with pytest.raises(UserError, match="no room for text; without any there are 31 already"):
        asyncio.run(fitted(20, 0, counting(lambda words: words + 30)))  # type: ignore[arg-type]


def test_made_up_prompts_differ_from_their_beginning_and_are_the_same_next_time() -> None:
    made, again, other = (MadeUpPrompts("", 50, seed) for seed in (1, 1, 2))
    texts = [made.prompt(number).messages[-1].content for number in range(200)]
    assert texts == [again.prompt(number).messages[-1].content for number in range(200)]
    assert len({text.split()[0] for text in texts}) == 200
    assert texts[0] != other.prompt(0).messages[-1].content


def test_a_file_is_asked_in_its_order_and_again(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a", "max_new_tokens": 3}\n{"messages": [{"role": "user", "content": "b"}]}\n')
    asked = file_prompts(path, "be brief")
    assert [asked.prompt(number).messages[-1].content for number in range(5)] == ["a", "b", "a", "b", "a"]
    assert asked.prompt(0).max_new_tokens == 3
    assert asked.prompt(1).messages[0].content == "be brief"
    assert (asked.count, asked.about) == (2, "prompts.jsonl")


def test_the_held_out_examples_of_a_run(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(tmp_path / "judged", n=5)
    asked = held_out_prompts(run)
    assert asked.count == 5
    rows = [json.loads(line) for line in (run.samples / "examples.jsonl").read_text().splitlines()]
    assert asked.prompt(7).messages[-1].content == rows[2]["messages"][-1]["content"]
    (run.samples / "examples.jsonl").unlink()
    with pytest.raises(UserError, match="judged: has no held-out examples yet"):
        held_out_prompts(run)
