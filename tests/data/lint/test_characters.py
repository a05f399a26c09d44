"""Wrong encodings and invisible characters."""

import pytest

from whetstone.data.example import Example, Message
from whetstone.data.lint.characters import control_characters, mojibake
from whetstone.data.lint.shown import each_text

SOUND = (
    "Plain prose, with a tab\tand\r\na new line.",
    "Zoë said: “Schöne Grüße aus Köln – 20 €”, c’est déjà l’été…",
    "Привет, мир. 你好，世界。 مرحبا بالعالم. नमस्ते दुनिया। ¿Qué tal?",
    "שלום\u200f (2024)\u200e, مرحبا\u200f. ภาษา\u200bไทย ភាសា\u200bខ្មែរ می\u200cخواهم",
    "A family 👨‍👩‍👧 and a flag 🇳🇱, x² ≤ 2·π, naïve façade, ½ café.",
)


def examples(*texts: str) -> list[Example]:
    return [
        Example(f"e{number}", (Message("user", text),), ("Yes.",), text, f"g{number}")
        for number, text in enumerate((*SOUND, *texts))
    ]


def test_sound_text_of_many_languages() -> None:
    assert mojibake(examples()) is None
    assert control_characters(examples()) is None


def test_mojibake() -> None:
    wrong = "L’été déjà passé".encode().decode("cp1252")
    found = mojibake(examples(wrong, "SchÃ¶ne GrÃ¼ÃŸe"))
    assert found
    assert (found.code, found.count, found.total, found.severity) == ("mojibake", 2, 7, "warning")
    assert found.examples[1] == "e6: SchÃ¶ne GrÃ¼ÃŸe"


def test_mojibake_in_a_reference_counts_once_an_example() -> None:
    one = Example("e", (Message("user", "dÃ©jÃ\xa0 vu"),), ("dÃ©jÃ\xa0 vu", "cafÃ©"), "x", "g")
    found = mojibake([one])
    assert found
    assert found.count == 1


@pytest.mark.parametrize(
    "char", ["\x00", "\x0b", "\x1b", "\x1f", "\x7f", "\x85", "\ufffd", "\ud83d", "\u2060", "\ufeff", "\u202e", "\u2066"]
)
def test_control_characters(char: str) -> None:
    found = control_characters(examples(f"a long enough beginning, then{char} the rest"))
    assert found
    assert (found.code, found.count, found.total) == ("control-character", 1, 6)
    escaped = char.encode("unicode_escape").decode()
    assert found.examples == (f"e5: …ough beginning, then{escaped} the rest",)


def test_turns_that_examples_share_are_read_once() -> None:
    first = Message("user", "Hello.")
    answer = "Hello to you."
    early = Example("a", (first,), (answer,), "Hello.", "talk")
    late = Example("b", (first, Message("assistant", answer), Message("user", "Bye.")), ("Goodbye.",), "Bye.", "talk")
    assert [text for _, text in each_text([early, late])] == ["Hello.", answer, "Bye.", "Goodbye."]
