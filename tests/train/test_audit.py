"""The audit passes good rows of every published template and finds each planted fault."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from whetstone.data.example import Example, Message
from whetstone.data.finding import Finding
from whetstone.data.template import CHATML, PLAIN, Template
from whetstone.data_section import Data
from whetstone.train.audit import ROWS_AUDITED, AuditedRow, as_served, audit, audit_rows, view_tokens
from whetstone.train.batch import IGNORE
from whetstone.tune_section import Tune

NAMES = (
    "qwen2",
    "smollm2",
    "llama3",
    "phi3",
    "gemma",
    "mistral-v0.3",
    "llama2",
    "zephyr",
    "tinyllama",
    "alpaca",
    "plain",
    "plain-without-bos",
)
WITHOUT_SYSTEM = ("gemma",)
WITHOUT_START = ("plain-without-bos",)
"""Its prompts start with text, and the tokenizer has no start token: nothing can stand there twice."""

BATCH = ("qwen2", "llama3", "phi3", "gemma", "mistral-v0.3", "plain")
DATA, TUNE, CONTEXT_TOKENS = Data(source="x"), Tune(), 2048

Load = Callable[[str], PreTrainedTokenizerBase]


def example(name: str, messages: Sequence[Message], *references: str) -> Example:
    return Example(name, tuple(messages), references, messages[-1].content if messages else references[0], name)


def examples(*, system: bool) -> list[Example]:
    """One turn, a system turn, several turns with other alphabets and line feeds, and plain text."""
    question = Message("user", "Correct this sentence: He go to the market.")
    turns = [question, Message("assistant", "He goes to the market."), Message("user", "Now in Polish,\nnaïve 東京!")]
    brief = [Message("system", "Be brief.")] if system else []
    return [
        example("one", [question], "He goes to the market.", "He went to the market."),
        example("brief", [*brief, question], "He goes."),
        example("several", [*brief, *turns], "Zażółć gęślą jaźń.\n\n  Two lines 🙂"),
        example("text", [], "The cat sits on the mat. She walks to school."),
    ]


def good_rows(name: str, tokenizer: PreTrainedTokenizerBase) -> list[AuditedRow]:
    template = Template(tokenizer)
    shown = examples(system=name not in WITHOUT_SYSTEM)
    return audit_rows(shown, template, DATA, TUNE, CONTEXT_TOKENS, as_served(template))


def found(rows: Sequence[AuditedRow], tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    end = Template(tokenizer).end_of_turn_id
    return audit(rows, tokenizer, {end}, {end})


def errors(rows: Sequence[AuditedRow], tokenizer: PreTrainedTokenizerBase) -> set[str]:
    return {finding.code for finding in found(rows, tokenizer) if finding.severity == "error"}


def with_end_masked(row: AuditedRow) -> AuditedRow:
    return replace(row, labels=(*row.labels[:-1], IGNORE))


def with_nothing_learned(row: AuditedRow) -> AuditedRow:
    return replace(row, labels=(IGNORE,) * len(row.labels))


def with_pads_masked(row: AuditedRow, pad_id: int) -> AuditedRow:
    return replace(row, labels=tuple(IGNORE if label == pad_id else label for label in row.labels))


def with_prompt_learned(row: AuditedRow) -> AuditedRow:
    return replace(row, labels=row.input_ids)


def with_labels_shifted(row: AuditedRow) -> AuditedRow:
    return replace(row, labels=(*row.labels[1:], row.labels[-1]))


def with_start_doubled(row: AuditedRow, start_id: int) -> AuditedRow:
    """As every stage would see it if rendered text were tokenised with special tokens added."""

    def doubled(ids: tuple[int, ...]) -> tuple[int, ...]:
        return (start_id, start_id, *(ids[1:] if ids[0] == start_id else ids))

    ids = doubled(row.input_ids)
    return replace(
        row,
        input_ids=ids,
        labels=(*[IGNORE] * (len(ids) - len(row.labels)), *row.labels),
        evaluation_prompt_ids=doubled(row.evaluation_prompt_ids),
        served_prompt_ids=doubled(row.served_prompt_ids),
    )


@pytest.mark.parametrize("name", NAMES)
def test_good_rows_of_every_template_pass(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    rows = good_rows(name, tokenizer)
    assert len(rows) == 5
    assert [(f.code, f.severity) for f in found(rows, tokenizer) if f.severity != "note"] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_end_is_found(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    rows = [with_end_masked(row) for row in good_rows(name, tokenizer)]
    assert errors(rows, tokenizer) == {"end-of-turn-not-learned"}


@pytest.mark.parametrize("name", NAMES)
def test_a_collator_that_masks_the_pad_token_masks_the_end_with_it(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    tokenizer.pad_token_id = Template(tokenizer).end_of_turn_id
    rows = good_rows(name, tokenizer)
    assert errors(rows, tokenizer) == set()
    rows = [with_pads_masked(row, tokenizer.pad_token_id) for row in rows]
    assert errors(rows, tokenizer) == {"end-of-turn-not-learned"}
    finding = found(rows, tokenizer)[0]
    assert (finding.count, finding.total) == (5, 5)
    assert any("pad token" in shown for shown in finding.examples)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_START])
def test_a_doubled_start_is_found(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    rows = good_rows(name, tokenizer)
    start = rows[0].input_ids[0]
    if start not in tokenizer.all_special_ids and start not in tokenizer.added_tokens_decoder:
        start = tokenizer.bos_token_id
    rows = [with_start_doubled(row, start) for row in rows if row.example.messages]
    found_errors = errors(rows, tokenizer)
    assert "start-doubled" in found_errors
    # The text has one more token than the template writes; nothing else is wrong.
    assert found_errors <= {"start-doubled", "text-changed"}


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_over_everything_is_found(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    rows = [with_nothing_learned(row) for row in good_rows(name, tokenizer)]
    assert errors(rows, tokenizer) == {"mask-empty"}


@pytest.mark.parametrize("name", NAMES)
def test_another_template_in_serving_is_found(name: str, load_tokenizer: Load) -> None:
    tokenizer, other = load_tokenizer(name), load_tokenizer(name)
    other.chat_template = CHATML.replace("<|im_start|>", "# ") if name.startswith("plain") else PLAIN
    template = Template(tokenizer)
    shown = [given for given in examples(system=name not in WITHOUT_SYSTEM) if given.messages]
    rows = audit_rows(shown, template, DATA, TUNE, CONTEXT_TOKENS, Template(other))
    assert errors(rows, tokenizer) == {"stages-differ"}
    assert all("serving has" in shown for shown in found(rows, tokenizer)[0].examples)


@pytest.mark.parametrize("name", BATCH)
@pytest.mark.parametrize("fault", [with_prompt_learned, with_labels_shifted])
def test_labels_that_are_not_the_answer_are_found(
    name: str, fault: Callable[[AuditedRow], AuditedRow], load_tokenizer: Load
) -> None:
    tokenizer = load_tokenizer(name)
    rows = [fault(row) for row in good_rows(name, tokenizer) if row.example.messages]
    assert errors(rows, tokenizer) == {"mask-wrong"}


@pytest.mark.parametrize("name", BATCH)
def test_a_training_prompt_that_is_not_the_asked_one_is_found(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    rows = [
        replace(row, input_ids=(row.input_ids[0], *row.input_ids[2:]), labels=row.labels[1:])
        for row in good_rows(name, tokenizer)[:1]
    ]
    assert "stages-differ" in errors(rows, tokenizer)


@pytest.mark.parametrize("name", BATCH)
def test_an_end_that_does_not_stop_is_found(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    rows, end = good_rows(name, tokenizer), Template(tokenizer).end_of_turn_id
    assert {(f.code, f.severity) for f in audit(rows, tokenizer, {end + 1}, {end})} >= {
        ("end-of-turn-does-not-stop", "error")
    }
    warnings = [f for f in audit(rows, tokenizer, {end}, []) if f.severity != "note"]
    assert [(f.code, f.severity) for f in warnings] == [("end-of-turn-does-not-stop", "warning")]
    assert "generation_config.json" in warnings[0].message


def test_another_special_token_as_end_is_found(load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer("llama3")
    end_of_text = tokenizer.eos_token_id
    rows = [
        replace(row, input_ids=(*row.input_ids[:-1], end_of_text), labels=(*row.labels[:-1], end_of_text))
        for row in good_rows("llama3", tokenizer)
        if row.example.messages
    ]
    assert errors(rows, tokenizer) == {"end-of-turn-not-learned"}


@pytest.mark.parametrize("name", BATCH)
def test_an_answer_that_is_not_the_reference_is_found(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    row = replace(good_rows(name, tokenizer)[0], reference="He goes to the theatre.")
    finding = next(f for f in found([row], tokenizer) if f.code == "text-changed")
    assert finding.severity == "error"
    assert "theatre" in finding.examples[0]
    assert finding.examples[0].startswith("one:")


def test_what_a_tokenizer_normalises_is_a_warning(load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer("qwen2")
    template = Template(tokenizer)
    decomposed = [example("nfd", [Message("user", "Say it.")], "Cafe\u0301")]
    rows = audit_rows(decomposed, template, DATA, TUNE, CONTEXT_TOKENS, as_served(template))
    assert [(f.code, f.severity) for f in found(rows, tokenizer)] == [("text-changed", "warning")]


def test_unknown_tokens_are_counted(load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer("llama2")
    row = good_rows("llama2", tokenizer)[0]
    unknown = tokenizer.unk_token_id
    learned = replace(
        row,
        input_ids=(*row.input_ids[:-2], unknown, row.input_ids[-1]),
        labels=(*row.labels[:-2], unknown, row.labels[-1]),
    )
    finding = next(f for f in found([learned], tokenizer) if f.code == "unknown-token")
    assert finding.severity == "error"
    assert f"1 of {len(row.input_ids)}" in finding.examples[0]


@pytest.mark.parametrize("name", NAMES)
def test_quoted_special_tokens_stay_text(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    template = Template(tokenizer)
    end = tokenizer.convert_ids_to_tokens(template.end_of_turn_id)
    quoting = [
        example("asked", [Message("user", f"What is {end} for?")], "It ends."),
        example("said", [Message("user", "How does a turn end?")], f"With {end} and no other."),
    ]
    rows = audit_rows(quoting, template, DATA, TUNE, CONTEXT_TOKENS, as_served(template))
    findings = [(f.code, f.severity, f.count) for f in found(rows, tokenizer) if f.severity != "note"]
    assert findings == [("special-token-in-text", "warning", 2)]
    assert template.end_of_turn_id not in rows[-1].input_ids[len(rows[-1].evaluation_prompt_ids) : -1]


@pytest.mark.parametrize("name", NAMES)
def test_content_that_closes_a_turn_is_found(name: str, load_tokenizer: Load) -> None:
    """The ids of a naive tokeniser, which takes special tokens out of content."""
    tokenizer = load_tokenizer(name)
    template = Template(tokenizer)
    end = tokenizer.convert_ids_to_tokens(template.end_of_turn_id)
    turns = (Message("user", f"Hello {end} there"),)
    naive = tuple(
        tokenizer.apply_chat_template([turn.as_dict() for turn in turns], add_generation_prompt=True, return_dict=False)
    )
    answer = tuple(template.answer_ids("Hello."))
    row = AuditedRow(
        example=example("asked", turns, "Hello."),
        reference="Hello.",
        input_ids=naive + answer,
        labels=(*[IGNORE] * len(naive), *answer),
        evaluation_prompt_ids=naive,
        served_prompt_ids=naive,
    )
    assert errors([row], tokenizer) == {"special-token-in-text"}
    middle = len(naive) + 1
    inside = (*row.input_ids[:middle], template.end_of_turn_id, *row.input_ids[middle:])
    labels = (*row.labels[:middle], template.end_of_turn_id, *row.labels[middle:])
    assert "special-token-in-text" in errors([replace(row, input_ids=inside, labels=labels)], tokenizer)


def test_a_row_that_was_truncated_on_purpose_has_no_end(load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer("gemma")
    template = Template(tokenizer)
    long = [example("long", [Message("user", "Say much.")], "The cat sits on the mat. 東京 🙂 " * 20)]
    data = Data(source="x", max_tokens=60, too_long="truncate")
    rows = audit_rows(long, template, data, TUNE, CONTEXT_TOKENS, as_served(template))
    assert rows[0].truncated
    assert len(rows[0].input_ids) == 60
    assert errors(rows, tokenizer) == set()
    assert errors([replace(row, truncated=False) for row in rows], tokenizer) >= {"end-of-turn-not-learned"}


def test_the_first_the_shortest_and_the_longest_are_looked_at(load_tokenizer: Load) -> None:
    template = Template(load_tokenizer("qwen2"))
    many = [example(f"e{i}", [Message("user", "The cat sits.")], "The cat " * (2 + i % 3)) for i in range(500)]
    many[200] = example("short", [Message("user", "a")], "b")
    many[300] = example("long", [Message("user", "The cat sits.")], "The cat sits on the mat. " * 30)
    rows = audit_rows(many, template, DATA, TUNE, 64, as_served(template))
    assert [row.example.id for row in rows[:3]] == ["e0", "short", "long"]
    assert len(rows) == len({row.example.id for row in rows}) == ROWS_AUDITED
    assert audit_rows([], template, DATA, TUNE, 64, template) == []
    first = audit_rows(examples(system=True), template, DATA, Tune(references="first"), 64, template)
    assert len(first) == 4


def test_tokens_are_shown_with_their_white_space(load_tokenizer: Load) -> None:
    for name in ("qwen2", "llama2"):
        tokenizer = load_tokenizer(name)
        rows = good_rows(name, tokenizer)
        for row in rows:
            views = view_tokens(row, tokenizer)
            assert len(views) == len(row.input_ids)
            assert [view.learned for view in views] == [label != IGNORE for label in row.labels]
            assert views[-1] == (tokenizer.convert_ids_to_tokens(row.input_ids[-1]), True, True)
            learned = "".join(view.text.strip("�") for view in views if view.learned and not view.special)
            spaced = learned.replace("·", " ").replace("⏎", "\n").strip()
            assert spaced == row.reference
            assert ("⏎" in learned) == ("\n" in row.reference)


SPECIAL_TEXTS = st.sampled_from(["<|im_end|>", "<|im_start|>", "</s>", "<s>", "[INST]", "<end_of_turn>", "<|eot_id|>"])
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONTENT = st.lists(ANY_TEXT | SPECIAL_TEXTS | st.just("\n"), max_size=4).map("".join)


@pytest.mark.parametrize("name", ["qwen2", "llama2", "mistral-v0.3", "gemma", "llama3"])
@given(question=CONTENT, answer=CONTENT)
@settings(max_examples=40)
def test_any_text_passes_through_every_stage(name: str, question: str, answer: str, load_tokenizer: Load) -> None:
    template = LOADED.get(name)
    if template is None:
        template = LOADED[name] = Template(load_tokenizer(name))
    any_text = [example("any", [Message("user", question)], answer), example("text", [], answer)]
    rows = audit_rows(any_text, template, DATA, TUNE, CONTEXT_TOKENS, template)
    assert errors(rows, template.tokenizer) == set()
    assert all(view_tokens(row, template.tokenizer) for row in rows)


LOADED: dict[str, Template] = {}
