"""Digests of questions: what is equal, and that giant conversations cost no more than their length."""

import hashlib

import pytest

from whetstone.data.example import Example, Message
from whetstone.data.lint.questions import (
    COMPARED_CHARACTERS,
    Questions,
    compared_text,
    digests,
    example_digests,
    prompt_digests,
)


def talk(turns: int) -> list[Example]:
    messages = [Message("user" if place % 2 == 0 else "assistant", f"Turn {place}. ") for place in range(turns)]
    return [
        Example(f"e{end}", tuple(messages[:end]), (messages[end].content,), messages[end - 1].content, "talk")
        for end in range(1, turns, 2)
    ]


def test_digests_are_stable_and_tell_texts_apart() -> None:
    first, second, again, broken = digests(["one", "two", "one", "\ud800"]).tolist()
    assert first == again == int.from_bytes(hashlib.blake2b(b"one", digest_size=8).digest(), "little")
    assert len({first, second, broken}) == 3


def test_digests_do_not_depend_on_the_example_before() -> None:
    examples = [*talk(20), *talk(6), Example("t", (), ("a text",), "a text", "t"), *talk(8)[::-1]]
    for read in (prompt_digests, example_digests, lambda some: Questions.of(some).whole):
        alone = [int(read([example])[0]) for example in examples]
        assert read(examples).tolist() == alone
    assert len(set(prompt_digests(talk(20)).tolist())) == 10


def test_roles_and_answers_make_another_example() -> None:
    asked, told = Message("user", "Salt?"), Message("system", "Salt?")
    examples = [Example("e", (turn,), (answer,), "Salt?", "g") for turn in (asked, told) for answer in ("Yes.", "No.")]
    assert len(set(example_digests(examples).tolist())) == 4
    assert len(set(prompt_digests(examples).tolist())) == 2


def test_a_giant_conversation_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def counting(text: str) -> str:
        nonlocal looks
        looks += 1
        return text.lower()

    monkeypatch.setattr("whetstone.data.lint.questions.normalised", counting)
    Questions.of(talk(400))
    # Each turn once, and the source of each of the 200 examples.
    assert looks <= 600


def test_of_long_questions_the_end_is_compared() -> None:
    long = "".join(f"{number} " for number in range(COMPARED_CHARACTERS))
    assert compared_text(Example("e", (Message("user", long),), ("a",), long, "g")) == long[-COMPARED_CHARACTERS:]
    last = talk(4000)[-1]
    turns = "\n".join(message.content for message in last.messages)
    assert compared_text(last) == turns[-COMPARED_CHARACTERS:]
