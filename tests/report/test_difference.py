from hypothesis import given
from hypothesis import strategies as st

from whetstone.report.difference import Piece, similarity, word_difference

texts = st.lists(st.sampled_from(["a", "b", "c", "the", "cat", ".", "ü", "<b>"]), max_size=12).map(" ".join) | st.text()


@given(texts, texts)
def test_same_and_removed_give_the_old_text(old: str, new: str) -> None:
    pieces = word_difference(old, new)
    assert " ".join(piece.text for piece in pieces if piece.kind != "added").split() == old.split()


@given(texts, texts)
def test_same_and_added_give_the_new_text(old: str, new: str) -> None:
    pieces = word_difference(old, new)
    assert " ".join(piece.text for piece in pieces if piece.kind != "removed").split() == new.split()


@given(texts)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert all(piece.kind == "same" for piece in word_difference(text, f" {text}\n"))


@given(texts, texts)
def test_pieces_are_never_empty(old: str, new: str) -> None:
    assert all(piece.text for piece in word_difference(old, new))


def test_a_replaced_word_is_removed_then_added() -> None:
    assert word_difference("She go home .", "She goes home .") == [
        Piece("same", "She"),
        Piece("removed", "go"),
        Piece("added", "goes"),
        Piece("same", "home ."),
    ]


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_similarity_is_a_share_and_full_only_for_the_same_words(text: str, references: list[str]) -> None:
    alike = similarity(text, references)
    assert 0 <= alike <= 1
    assert (alike == 1) == any(text.split() == reference.split() for reference in references)


def test_similarity_takes_the_nearest_reference() -> None:
    assert similarity("a b c d", ["x y", "a b c e"]) == 0.75
