"""Several answers to one prompt, and the one to give: the best by a score, or what most of them say."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from whetstone.engine.api import Completion, Engine, Request
from whetstone.section import stable_hash

__all__ = ["Vote", "best_of", "best_of_n", "repeated", "self_consistency", "vote_of_n"]


@dataclass(frozen=True, slots=True)
class Vote:
    """What most answers say.

    Attributes:
        answer: The answer with the most votes; None if no completion held an answer.
        share: Its votes as a share of all completions, those without an answer included.
        votes: How many completions gave each answer, the most frequent first.
    """

    answer: str | None
    share: float
    votes: dict[str, int]


def repeated(request: Request, n: int) -> list[Request]:
    """The same request ``n`` times, each with a random stream of its own.

    The first keeps the seed of the request, and each of the others has one that follows from it, so a larger ``n``
    only adds answers.
    """
    seeds = [int(stable_hash([request.seed, index]), 16) % 2**63 for index in range(1, n)]
    return [request, *(replace(request, seed=seed) for seed in seeds)][:n]


def best_of(completions: Sequence[Completion], score: Callable[[Completion], float]) -> Completion:
    """The completion with the highest score; the first of them if several have it."""
    return max(completions, key=score)


def self_consistency(completions: Sequence[Completion], answer_of: Callable[[str], str | None]) -> Vote:
    """Majority vote over the answers (self-consistency, Wang et al. 2022, arXiv:2203.11171).

    Of answers with equally many votes the one wins that was given first.

    Args:
        completions: Sampled answers to one prompt; failed ones count as answers without a vote.
        answer_of: Takes the final answer out of a text; None where it holds none.
    """
    answers = [answer_of(completion.text) for completion in completions if completion.finish_reason != "error"]
    # Counter keeps the order of first appearance among equals.
    votes = dict(Counter(answer for answer in answers if answer is not None).most_common())
    winner = next(iter(votes), None)
    return Vote(winner, votes[winner] / len(completions) if winner is not None else 0.0, votes)


def best_of_n(engine: Engine, request: Request, n: int, score: Callable[[Completion], float]) -> Completion:
    """Asks ``n`` times in one batch and gives the best answer; see :func:`best_of`."""
    return best_of(engine.generate(repeated(request, n)), score)


def vote_of_n(engine: Engine, request: Request, n: int, answer_of: Callable[[str], str | None]) -> Vote:
    """Asks ``n`` times in one batch and lets the answers vote; see :func:`self_consistency`."""
    return self_consistency(engine.generate(repeated(request, n)), answer_of)
