"""Rows and batches."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from whetstone.data.example import Example, Message
from whetstone.data.template import Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.experiment import Tune
from whetstone.models.scratch import train_tokenizer
from whetstone.train.batch import IGNORE, LengthGroupedSampler, Row, collate, make_rows


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
    rows, dropped = make_rows(examples, template, Data(source="x", too_long="drop"), Tune(), 40)
    assert [row.example for row in rows] == ["one"]
    assert dropped == 2
    with pytest.raises(UserError, match="nothing is left"):
        make_rows(examples[1:], template, Data(source="x", too_long="drop"), Tune(), 40)


def test_first_reference_only(template: Template) -> None:
    rows, _ = make_rows([example("one", "two", "three")], template, Data(source="x"), Tune(references="first"), 99)
    assert len(rows) == 1
    assert template.decode([label for label in rows[0].labels if label != IGNORE]) == "two"


def test_collate_pads_on_the_right() -> None:
    batch = collate([Row("a", (5, 6, 7), (IGNORE, 6, 7)), Row("b", (8,), (IGNORE,))], pad_id=0)
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 6, 7], [8, 0, 0]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[IGNORE, 6, 7], [IGNORE, IGNORE, IGNORE]]))


def test_sampler_visits_every_row_once_in_batches_of_similar_length() -> None:
    made = [Row(str(n), tuple(range(1 + n * 37 % 60)), ()) for n in range(1000)]
    sampler = LengthGroupedSampler(made, 10, seed=3)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second
    assert first == list(LengthGroupedSampler(made, 10, seed=3))
    lengths = [[len(made[index].input_ids) for index in first[i : i + 10]] for i in range(0, 1000, 10)]
    padded = sum(10 * max(batch) for batch in lengths)
    assert padded < 1.1 * sum(map(sum, lengths))
    means = [sum(batch) for batch in lengths]
    assert means[:50] not in (sorted(means[:50]), sorted(means[:50], reverse=True))
