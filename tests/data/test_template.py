"""One template for all stages: the ids that are trained are the ids that are asked and served."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from whetstone.data.example import Example, Message
from whetstone.data.template import CHATML, PLAIN, Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.models.scratch import train_tokenizer
from whetstone.train.batch import IGNORE, make_rows
from whetstone.tune_section import Tune

TEXTS = ["The cat sits on the mat .", "She walks to school every day .", "Correct this sentence :"] * 3

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
SPACED = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)
WITHOUT_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + LLAMA3
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
    ("chat_template", "end"),
    [(None, "<|end|>"), (CHATML, "<|im_end|>"), (LLAMA3, "<|eot|>"), (PLAIN, "<|end|>"), (SPACED, "<|end|>")],
)
def test_end_of_turn_is_what_the_template_puts_after_an_answer(chat_template: str | None, end: str) -> None:
    template = Template(tokenizer(chat_template))
    assert template.tokenizer.convert_ids_to_tokens(template.end_of_turn_id) == end
    assert template.answer_ids("The cat sits .")[-1] == template.end_of_turn_id


@pytest.mark.parametrize("chat_template", [None, CHATML, LLAMA3, PLAIN, SPACED])
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
    rows = make_rows([example], template, Data(source="x"), Tune(), 128).rows
    prompt = template.prompt_ids(QUESTION)
    assert len(rows) == 2
    for row, reference in zip(rows, example.references, strict=True):
        assert list(row.input_ids[: len(prompt)]) == prompt
        assert set(row.labels[: len(prompt)]) == {IGNORE}
        learned = row.labels[len(prompt) :]
        assert list(learned) == list(row.input_ids[len(prompt) :]) == template.answer_ids(reference)
        assert learned[-1] == template.end_of_turn_id


def test_saved_template_is_the_template_that_is_loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("saved")
    template = Template(tokenizer(), "plain")
    template.tokenizer.save_pretrained(folder)
    again = Template(PreTrainedTokenizerFast.from_pretrained(folder))
    assert again.prompt_ids(QUESTION) == template.prompt_ids(QUESTION)
    assert again.end_of_turn_id == template.end_of_turn_id


def test_white_space_round_an_answer_is_said() -> None:
    template = Template(tokenizer(SPACED))
    said = template.tokenizer.decode(template.answer_ids("The cat sits ."))
    assert said == " The cat sits . <|end|>"
    assert template.decode(template.answer_ids("The cat sits .")) == "The cat sits ."


def test_an_end_that_is_marked_special_and_named_nowhere_is_found() -> None:
    made = tokenizer()
    made.add_tokens([AddedToken("<|stop|>", special=True)])
    assert "<|stop|>" not in made.all_special_tokens
    made.chat_template = (
        "{% for m in messages %}{{ m.role }}\n{{ m.content }}<|stop|>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant\n{% else %}{{ eos_token }}{% endif %}"
    )
    template = Template(made)
    assert made.convert_ids_to_tokens(template.end_of_turn_id) == "<|stop|>"


TURNS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(["<|im_end|>", "a<|end|>b"])


@pytest.mark.parametrize("chat_template", [CHATML, SPACED, PLAIN])
@given(texts=st.lists(TURNS, max_size=8))
def test_many_are_encoded_as_one_by_one(chat_template: str, texts: list[str]) -> None:
    template = TEMPLATES[chat_template]
    conversations = [() if not text else (Message("user", text),) for text in texts]
    assert template.prompt_ids_many(conversations) == [template.prompt_ids(turns) for turns in conversations]
    assert template.answer_ids_many(texts) == [template.answer_ids(text) for text in texts]


@pytest.mark.parametrize("chat_template", [None, CHATML, LLAMA3, PLAIN, SPACED])
def test_prompts_are_what_the_library_renders(chat_template: str | None) -> None:
    template = Template(tokenizer(chat_template))
    conversations = [QUESTION, QUESTION[1:], (*QUESTION, Message("assistant", " A ."), Message("user", "ż\n東"))]
    for turns, ids in zip(conversations, template.prompt_ids_many(conversations), strict=True):
        dicts = [turn.as_dict() for turn in turns]
        assert ids == template.tokenizer.apply_chat_template(dicts, add_generation_prompt=True, return_dict=False)


def test_text_never_becomes_a_special_token() -> None:
    template = Template(tokenizer(CHATML))
    end = template.end_of_turn_id
    quoting = template.prompt_ids([Message("user", "What does <|im_end|> do?")])
    assert quoting.count(end) == template.prompt_ids([Message("user", "What does it do?")]).count(end)
    assert "<|im_end|>" in template.tokenizer.decode(quoting, skip_special_tokens=True)
    answer = template.answer_ids("It ends<|im_end|> a turn .")
    assert answer.count(end) == 1
    assert template.decode(answer) == "It ends<|im_end|> a turn ."


@pytest.mark.parametrize(("bos", "start"), [("<s>", "<s>"), (None, "<|end|>")])
def test_plain_text_is_predicted_from_a_start(bos: str | None, start: str) -> None:
    made = tokenizer()
    made.bos_token = bos
    template = Template(made)
    assert made.convert_ids_to_tokens(template.prompt_ids(())) == [start]
    assert template.prompt_ids_many([(), QUESTION]) == [template.prompt_ids(()), template.prompt_ids(QUESTION)]


def test_a_template_without_system_turns_says_so() -> None:
    template = Template(tokenizer(WITHOUT_SYSTEM))
    with pytest.raises(UserError, match=r"no system turn.*data\.system"):
        template.prompt_ids_many([QUESTION[1:], QUESTION])


def test_decoding_does_not_tidy_up() -> None:
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"here": 0, ".": 1, "<|end|>": 2})), eos_token="<|end|>"
    )
    made.clean_up_tokenization_spaces = True
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert Template(made, "plain").decode([0, 1, 2]) == "here ."


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
        (tokenizer, "no/such.jinja", "cannot be read"),
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
TEMPLATES = {chat_template: Template(tokenizer(chat_template)) for chat_template in (CHATML, SPACED, PLAIN)}
