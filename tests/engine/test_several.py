"""Several answers to one prompt."""

from collections.abc import AsyncIterator, Sequence

from whetstone.engine.api import Completion, Delta, FinishReason, Request, Sampling, Timing, Usage
from whetstone.engine.several import best_of, best_of_n, repeated, self_consistency, vote_of_n


def said(text: str, reason: FinishReason = "stop") -> Completion:
    return Completion((1,), text, reason, Timing(0, (1,), 1), Usage(1, 1))


class Scripted:
    """Gives prepared answers, and remembers what it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked: list[list[Request]] = []

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.asked.append(list(requests))
        return [said(text) for text in self.texts]

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        raise NotImplementedError

    def close(self) -> None: ...


REQUEST = Request((1, 2), 5, Sampling(1.0), seed=9)


def last_word(text: str) -> str | None:
    return text.split()[-1] if text.split() else None


def test_only_seeds_differ_and_more_samples_only_add() -> None:
    five = repeated(REQUEST, 5)
    assert five[0] == REQUEST
    assert len({request.seed for request in five}) == 5
    assert {(request.token_ids, request.sampling) for request in five} == {((1, 2), Sampling(1.0))}
    assert repeated(REQUEST, 3) == five[:3]
    assert repeated(Request((1, 2), 5, Sampling(1.0), seed=10), 5)[1:] != five[1:]


def test_the_first_of_the_best_is_given() -> None:
    completions = [said("a"), said("bb"), said("cc")]
    assert best_of(completions, lambda completion: len(completion.text)) is completions[1]


def test_the_majority_wins_and_the_first_of_equals() -> None:
    texts = ("so 4", "so 5", "it is 5", "", "hence 4", "6")
    vote = self_consistency([said(text) for text in texts], last_word)
    assert vote.answer == "4"
    assert vote.share == 2 / 6
    assert list(vote.votes.items()) == [("4", 2), ("5", 2), ("6", 1)]


def test_failed_answers_have_no_vote() -> None:
    vote = self_consistency([said("4", "error"), said("4", "error"), said("5")], last_word)
    assert (vote.answer, vote.share) == ("5", 1 / 3)
    nobody = self_consistency([said("")], last_word)
    assert (nobody.answer, nobody.share, nobody.votes) == (None, 0.0, {})


def test_all_samples_are_asked_for_at_once() -> None:
    engine = Scripted("a", "ccc", "bb")
    assert best_of_n(engine, REQUEST, 3, lambda completion: len(completion.text)).text == "ccc"
    assert vote_of_n(Scripted("x 1", "y 1", "2"), REQUEST, 3, last_word).answer == "1"
    assert engine.asked == [repeated(REQUEST, 3)]
