"""One template for all stages: the ids that are trained are the ids that are asked and served."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from whetstone.data.example import Example, Message
from whetstone.data.template import CHATML, PLAIN, Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.experiment import Tune
from whetstone.models.scratch import train_tokenizer
from whetstone.train.batch import IGNORE, make_rows

TEXTS = ["The cat sits on the mat .", "She walks to school every day .", "Correct this sentence :"] * 3

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
SHIFTING = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}bot>{% endif %}"
)


def tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    made = train_tokenizer(TEXTS, 300)
    special = ["<|im_start|>", "<|im_end|>", "<|start|>", "<|eot|>", "<s>"]
    made.add_special_tokens({"extra_special_tokens": special})
    made.bos_token = "<s>"
    if chat_template is not None:
        made.chat_template = chat_template
    return made


QUESTION = (Message("system", "Be brief."), Message("user", "The cat sit on mat ."))


@pytest.mark.parametrize(
    ("chat_template", "end"), [(None, "<|end|>"), (CHATML, "<|im_end|>"), (LLAMA3, "<|eot|>"), (PLAIN, "<|end|>")]
)
def test_end_of_turn_is_what_the_template_puts_after_an_answer(chat_template: str | None, end: str) -> None:
    template = Template(tokenizer(chat_template))
    assert template.tokenizer.convert_ids_to_tokens(template.end_of_turn_id) == end
    assert template.answer_ids("The cat sits .")[-1] == template.end_of_turn_id


@pytest.mark.parametrize("chat_template", [None, CHATML, LLAMA3, PLAIN])
def test_joined_ids_render_the_whole_conversation(chat_template: str | None) -> None:
    template = Template(tokenizer(chat_template))
    answer = "The cat sits on the mat ."
    ids = template.prompt_ids(QUESTION) + template.answer_ids(answer)
    turns = [message.as_dict() for message in (*QUESTION, Message("assistant", answer))]
    whole = template.tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole.startswith(template.tokenizer.decode(ids))
    assert template.decode(template.answer_ids(answer)) == answer


@pytest.mark.parametrize("chat_template", [LLAMA3, PLAIN])
def test_the_first_token_is_not_doubled(chat_template: str) -> None:
    template = Template(tokenizer(chat_template))
    bos = template.tokenizer.bos_token_id
    assert template.prompt_ids(QUESTION).count(bos) == 1


def test_training_asks_what_evaluation_asks_and_learns_the_answer_with_its_end() -> None:
    template = Template(tokenizer())
    example = Example("e", QUESTION, ("The cat sits .", "The cat sat ."), "The cat sit on mat .", "g")
    rows, dropped = make_rows([example], template, Data(source="x"), Tune(), 128)
    prompt = template.prompt_ids(QUESTION)
    assert dropped == 0
    assert len(rows) == 2
    for row, reference in zip(rows, example.references, strict=True):
        assert list(row.input_ids[: len(prompt)]) == prompt
        assert set(row.labels[: len(prompt)]) == {IGNORE}
        learned = row.labels[len(prompt) :]
        assert learned == row.input_ids[len(prompt) :] == tuple(template.answer_ids(reference))
        assert learned[-1] == template.end_of_turn_id


def test_saved_template_is_the_template_that_is_loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("saved")
    template = Template(tokenizer(), "plain")
    template.tokenizer.save_pretrained(folder)
    again = Template(PreTrainedTokenizerFast.from_pretrained(folder))
    assert again.prompt_ids(QUESTION) == template.prompt_ids(QUESTION)
    assert again.end_of_turn_id == template.end_of_turn_id


def without_template() -> PreTrainedTokenizerFast:
    made = tokenizer()
    made.chat_template = None
    return made


def without_chatml() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 300)


@pytest.mark.parametrize(
    ("make", "choice", "message"),
    [
        (without_template, "auto", "no chat template"),
        (without_chatml, "chatml", "no special token"),
        (lambda: tokenizer(SHIFTING), "auto", "differently"),
        (lambda: tokenizer(THINKING), "auto", "differently"),
        (lambda: tokenizer("{{ raise_exception('no') }}"), "auto", "cannot render"),
    ],
)
def test_templates_that_would_drift_are_refused(
    make: Callable[[], PreTrainedTokenizerFast], choice: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Template(make(), choice)


@given(answer=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_text_survives_encoding(answer: str) -> None:
    template = Template(TOKENIZER)
    assert template.decode(template.answer_ids(answer)) == answer.strip()


TOKENIZER = tokenizer()
