"""Rows and batches."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from whetstone.data.example import Example, Message
from whetstone.data.template import Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.models.scratch import train_tokenizer
from whetstone.train.batch import IGNORE, Row, collate, cut_padding, make_rows, measure_lengths
from whetstone.tune_section import Tune


@pytest.fixture(scope="module")
def template() -> Template:
    made: PreTrainedTokenizerFast = train_tokenizer(["one two three four"] * 3, 270)
    return Template(made)


def example(source: str, *references: str) -> Example:
    return Example(source, (Message("user", source),), references, source, source)


def test_too_long_is_an_error_that_names_the_example(template: Template) -> None:
    examples = [example("one", "two"), example("four" * 40, "four")]
    with pytest.raises(UserError, match=r"example 'four.*data\.max_tokens"):
        make_rows(examples, template, Data(source="x", max_tokens=40), Tune(), 999)


def test_drop_counts_and_the_context_is_a_limit_too(template: Template) -> None:
    examples = [example("one", "two", "three" * 30), example("four" * 40, "four")]
    made = make_rows(examples, template, Data(source="x", too_long="drop"), Tune(), 40)
    assert [row.example for row in made.rows] == ["one"]
    assert (made.dropped, made.truncated) == (2, 0)
    made = make_rows(examples[1:], template, Data(source="x", too_long="drop"), Tune(), 40)
    assert (made.rows, made.dropped) == ([], 1)


def test_first_reference_only(template: Template) -> None:
    examples = [example("one", "two", "three")]
    (row,) = make_rows(examples, template, Data(source="x"), Tune(references="first"), 99).rows
    assert template.decode([label for label in row.labels if label != IGNORE]) == "two"
    assert row.loss_tokens == len(template.answer_ids("two"))


def test_a_truncated_answer_does_not_end(template: Template) -> None:
    prompt = template.prompt_ids(example("one", "").messages)
    whole = template.answer_ids("one two three four")
    data = Data(source="x", too_long="truncate")
    for limit in range(len(prompt) + 1, len(prompt) + len(whole)):
        made = make_rows([example("one", "one two three four")], template, data, Tune(), limit)
        assert (made.dropped, made.truncated) == (0, 1)
        (row,) = made.rows
        assert row.truncated
        assert list(row.input_ids) == [*prompt, *whole][:limit]
        assert row.labels[-1] == row.input_ids[-1]
        assert template.end_of_turn_id not in row.labels
    (row,) = make_rows([example("one", "one two three four")], template, data, Tune(), limit + 1).rows
    assert row.labels[-1] == template.end_of_turn_id
    assert not row.truncated


def test_a_prompt_that_leaves_no_room_for_an_answer_is_dropped(template: Template) -> None:
    long = example("four" * 40, "two")
    limit = len(template.prompt_ids(long.messages))
    data = Data(source="x", too_long="truncate")
    made = make_rows([example("one", "two"), long], template, data, Tune(), limit)
    assert [row.example for row in made.rows] == ["one"]
    assert (made.dropped, made.truncated) == (1, 0)
    assert make_rows([long], template, data, Tune(), limit).rows == []


def test_rows_say_where_they_come_from(template: Template) -> None:
    (row,) = make_rows([example("one", "two")], template, Data(source="x"), Tune(), 99, origin="replay").rows
    assert row.origin == "replay"
    assert collate([row, Row("a", (5, 6), 1)], pad_id=0)["origins"].tolist() == [1, 0]


def test_lengths_are_those_of_the_rows(template: Template) -> None:
    """More examples than are encoded at once, so that borders of chunks are crossed."""
    examples = [example(f"one {'two ' * (i % 7)}{i}", "three", "four " * (i % 5)) for i in range(2300)]
    for tune in (Tune(), Tune(references="first")):
        rows = make_rows(examples, template, Data(source="x"), tune, 999).rows
        lengths = measure_lengths(examples, template, tune)
        assert [examples[index].id for index in lengths.example] == [row.example for row in rows]
        assert lengths.prompt_tokens.tolist() == [row.prompt_tokens for row in rows]
        assert lengths.answer_tokens.tolist() == [row.loss_tokens for row in rows]
    assert len(measure_lengths([], template, Tune()).example) == 0


def test_a_row_is_small(template: Template) -> None:
    (row,) = make_rows([example("one", "two " * 300)], template, Data(source="x", max_tokens=9999), Tune(), 9999).rows
    assert sys.getsizeof(row.input_ids) < 100 + 4.5 * len(row.input_ids)


def test_collate_pads_on_the_right() -> None:
    batch = collate([Row("a", (5, 6, 7), 1), Row("b", (8,), 1)], pad_id=0)
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 6, 7], [8, 0, 0]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[IGNORE, 6, 7], [IGNORE, IGNORE, IGNORE]]))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_cutting_keeps_every_token_and_never_makes_more_of_them(lengths: list[int]) -> None:
    batch = collate([Row("a", range(1, length + 1), length // 2) for length in lengths], pad_id=0)
    parts = cut_padding(batch, lengths)
    whole = batch["input_ids"].numel()
    assert sum(part["input_ids"].numel() for part in parts) <= (whole if len(parts) == 1 else 0.75 * whole)
    seen = [
        ids[mask == 1].tolist()
        for part in parts
        for ids, mask in zip(part["input_ids"], part["attention_mask"], strict=True)
    ]
    assert sorted(map(len, seen)) == sorted(lengths)
    assert all(ids == list(range(1, len(ids) + 1)) for ids in seen)
    learned = torch.cat([part["labels"].flatten() for part in parts])
    assert torch.equal(
        learned[learned != IGNORE].sort().values, batch["labels"][batch["labels"] != IGNORE].sort().values
    )


def test_short_rows_are_cut_from_long_ones() -> None:
    rows = [Row("a", range(100), 1), *[Row("b", range(10), 1)] * 7]
    batch = collate(rows, pad_id=0)
    short, long = cut_padding(batch, [len(row.input_ids) for row in rows])
    assert short["input_ids"].shape == (7, 10)
    assert long["labels"].shape == (1, 100)
    assert len(cut_padding(collate(rows[:1], pad_id=0), [100])) == 1
