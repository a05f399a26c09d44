"""Which rows are asked again."""

import pytest

from whetstone.serve.proof.replay import Replay, batches


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [
        (400, 50, [(0, 50)]),
        (400, 8, [(0, 8)]),
        (400, 64, [(0, 64)]),
        (400, 128, [(0, 64)]),
        (400, 5, [(0, 5), (5, 10)]),
        (400, 1, [(index, index + 1) for index in range(8)]),
        (7, 5, [(0, 5), (5, 7)]),
        (3, 50, [(0, 3)]),
        (0, 50, []),
    ],
)
def test_whole_batches_of_the_judgement_are_asked(rows: int, size: int, expected: list[tuple[int, int]]) -> None:
    assert batches(rows, size) == expected


def test_a_refusal_says_how_many_and_what_differs() -> None:
    assert Replay(8, 8).refusal is None
    assert Replay(0, 0).refusal == "no judged answers are there to compare with"
    assert Replay(8, 5, "e3", causes=("torch is 3, judged with 2",)).refusal == (
        "3 of 8 judged answers come out otherwise, 'e3' first; torch is 3, judged with 2"
    )
    assert Replay(8, 0, "e1", 8).refusal == (
        "8 of 8 judged answers come out otherwise, 'e1' first; 8 prompts have other tokens: template or tokenizer "
        "changed; nothing else that is recorded differs"
    )
