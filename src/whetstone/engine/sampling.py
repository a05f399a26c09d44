"""Choosing the next token of every row of a batch.

The order is that of transformers: repetition penalty, constraint, temperature, top-k, top-p, min-p. A row's choice
depends on its own logits and its own random stream alone: one uniform number a token, which the inverse of the
cumulated probabilities turns into a token. Equally likely tokens are in the order of their ids.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from whetstone.engine.api import Logprob, Request
from whetstone.engine.constraint import Grammar
from whetstone.errors import UserError

__all__ = ["Choice", "Chooser", "check_choices", "choose"]

_NO_NUMBERS = "the model's logits are not numbers; try model.dtype float32"
_NOTHING_ALLOWED = "the constraint allows no token here"

_RANGES = {
    "temperature": "0 for the likeliest token, or 1e-6 and more",
    "top_p": "a share above 0, up to 1",
    "top_k": "1 or more, or none",
    "min_p": "a share from 0 to 1",
    "repetition_penalty": "a number above 0; 1 is none",
    "logprobs": "0 or more, or none",
}

_CANDIDATES = 256
"""So many of the likeliest tokens usually reach ``top_p``; finding them is much less work than sorting a vocabulary."""

_WIDENING = 16
"""So many times as many are looked at where they do not."""


def check_choices(request: Request) -> None:
    """Refuses what no token can be chosen by, before it spoils a batch.

    Raises:
        UserError: A number of the sampling is out of its range, or ``logprobs`` is.
    """
    sampling, logprobs = request.sampling, request.logprobs
    allowed = [
        # Below the least temperature the quotients are no numbers; as good as greedy it is long before that.
        ("temperature", sampling.temperature, sampling.temperature == 0 or 1e-6 <= sampling.temperature < math.inf),
        ("top_p", sampling.top_p, 0 < sampling.top_p <= 1),
        ("top_k", sampling.top_k, sampling.top_k is None or sampling.top_k >= 1),
        ("min_p", sampling.min_p, 0 <= sampling.min_p <= 1),
        ("repetition_penalty", sampling.repetition_penalty, 0 < sampling.repetition_penalty < math.inf),
        ("logprobs", logprobs, logprobs is None or logprobs >= 0),
    ]
    for name, value, is_allowed in allowed:
        if not is_allowed:
            raise UserError(f"{name}: {value} is out of range; give {_RANGES[name]}")


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for one row.

    Attributes:
        token_id: The token; None if nothing could be chosen, which concerns this row alone.
        logprob: Of the token, where the request asks for it.
        error: Why nothing could be chosen.
    """

    token_id: int | None
    logprob: Logprob | None = None
    error: str | None = None


class Chooser:
    """How the tokens of one request are chosen: its settings, its random stream, its constraint, what it has said."""

    def __init__(self, request: Request, grammar: Grammar | None = None) -> None:
        """Begins a random stream.

        Args:
            request: Its sampling, seed and prompt are used.
            grammar: What its text may become; None for anything.
        """
        self.sampling = request.sampling
        self.logprobs = request.logprobs
        self.grammar = grammar
        self._said = _Said(request) if self.sampling.repetition_penalty != 1 else None
        self._random = random.Random(request.seed)

    @property
    def edits(self) -> bool:
        """Whether logits are changed before a token is chosen, greedily or not."""
        return self.grammar is not None or self._said is not None

    @property
    def ended(self) -> bool:
        """Whether the constraint is met and allows nothing more; the answer should be finished."""
        return self.grammar is not None and self.grammar.ended

    def uniform(self) -> float:
        """The next number of the random stream, from 0 to below 1."""
        return self._random.random()

    def edit(self, scores: torch.Tensor) -> None:
        """Applies repetition penalty and constraint to the logits ``(vocabulary,)`` of the next token, in place."""
        if self._said is not None:
            ids = self._said.ids.to(scores.device)
            penalty, old = self.sampling.repetition_penalty, scores[ids]
            scores[ids] = torch.where(old < 0, old * penalty, old / penalty)
        if self.grammar is not None:
            self.grammar.mask(scores)

    def note(self, token_id: int) -> None:
        """Takes note of a token that was chosen."""
        if self._said is not None:
            self._said.add(token_id)
        if self.grammar is not None:
            self.grammar.accept(token_id)


class _Said:
    """The different tokens of a prompt and its answer."""

    def __init__(self, request: Request) -> None:
        self._known = set(request.token_ids)
        self._room = torch.zeros(len(self._known) + request.max_new_tokens, dtype=torch.long)
        self._room[: len(self._known)] = torch.tensor(sorted(self._known))

    @property
    def ids(self) -> torch.Tensor:
        return self._room[: len(self._known)]

    def add(self, token_id: int) -> None:
        if token_id not in self._known:
            self._room[len(self._known)] = token_id
            self._known.add(token_id)


@torch.inference_mode()
def choose(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[Choice]:
    """Chooses one token for each row; the choosers take note of it.

    Args:
        logits: ``(rows, vocabulary)``, on any device, of any floating type; left as they are.
        choosers: One for each row.

    Returns:
        One choice for each row. It has no token where the logits hold NaN or no finite maximum, or where a constraint
        allows nothing.
    """
    scores = logits
    if any(chooser.edits for chooser in choosers):
        scores = logits.clone()
        for row, chooser in enumerate(choosers):
            if chooser.edits:
                chooser.edit(scores[row])
    token_ids = _largest(scores)
    drawn = [row for row, chooser in enumerate(choosers) if chooser.sampling.temperature > 0 and token_ids[row] >= 0]
    if drawn:
        drawn_ids = _draw(scores[drawn], [choosers[row] for row in drawn]).tolist()
        for row, token_id in zip(drawn, drawn_ids, strict=True):
            token_ids[row] = token_id
    logprobs = _logprobs(logits, token_ids, choosers)
    choices = []
    for row, (token_id, chooser) in enumerate(zip(token_ids, choosers, strict=True)):
        if token_id < 0:
            choices.append(Choice(None, error=_fault(logits[row])))
        else:
            chooser.note(token_id)
            choices.append(Choice(token_id, logprobs.get(row)))
    return choices


def _largest(scores: torch.Tensor) -> list[int]:
    """The place of the largest score of each row, the first where several are; -1 where it is not a finite number."""
    if scores.device.type != "cpu":
        tokens = scores.argmax(dim=-1)
        usable = scores.gather(-1, tokens[:, None])[:, 0].isfinite()
        found: list[int] = tokens.where(usable, -1).tolist()
        return found
    # On a processor NumPy searches five times as fast.
    values = _wide(scores).numpy()
    places = values.argmax(axis=-1)
    finite = np.isfinite(values[np.arange(len(places)), places])
    return [place if usable else -1 for place, usable in zip(places.tolist(), finite.tolist(), strict=True)]


def _fault(logits: torch.Tensor) -> str:
    return _NOTHING_ALLOWED if bool(logits.max().isfinite()) else _NO_NUMBERS


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows to draw for, ``(rows, 1)`` each beside the scores, which are divided by the temperature already."""

    scores: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    uniforms: torch.Tensor

    def at(self, rows: list[int]) -> "_Rows":
        """Some of the rows."""
        if len(rows) == len(self.scores):
            return self
        parts = (self.scores, self.top_k, self.top_p, self.min_p, self.uniforms)
        return _Rows(*(part[rows] for part in parts))


def _draw(scores: torch.Tensor, choosers: Sequence[Chooser]) -> torch.Tensor:
    """Draws a token for each row, all of which have a temperature."""
    scores = _wide(scores)
    vocabulary = scores.shape[-1]
    samplings = [chooser.sampling for chooser in choosers]
    top_k = [min(sampling.top_k or vocabulary, vocabulary) for sampling in samplings]
    rows = _Rows(
        scores / _column([sampling.temperature for sampling in samplings], scores).to(scores.dtype),
        torch.tensor(top_k, device=scores.device)[:, None],
        _column([sampling.top_p for sampling in samplings], scores),
        _column([sampling.min_p for sampling in samplings], scores),
        _column([chooser.uniform() for chooser in choosers], scores),
    )
    tokens = torch.empty(len(choosers), dtype=torch.long, device=scores.device)
    cut = [row for row, sampling in enumerate(samplings) if top_k[row] < vocabulary or sampling.top_p < 1]
    whole = sorted(set(range(len(choosers))).difference(cut))
    if whole:
        tokens[whole] = _draw_from_all(rows.at(whole))
    # The likeliest hold what most rows may draw; where they do not, more are looked at, and in the end all.
    count = max((k for k in top_k if k < vocabulary), default=_CANDIDATES)
    count = max(count, _CANDIDATES)
    while cut:
        count = min(count, vocabulary)
        tokens[cut], enough = _draw_from_likeliest(count, rows.at(cut))
        if count == vocabulary:
            break
        cut = [row for row, done in zip(cut, enough.tolist(), strict=True) if not done]
        count *= _WIDENING
    return tokens


def _draw_from_all(rows: _Rows) -> torch.Tensor:
    """Draws where only min-p leaves tokens out, without sorting anything."""
    weights = (rows.scores - rows.scores.amax(dim=-1, keepdim=True)).exp()
    weights = weights * (weights >= rows.min_p.to(weights.dtype))
    return _invert(weights.cumsum(dim=-1, dtype=_widest(weights)), rows.uniforms)[:, 0]


def _draw_from_likeliest(count: int, rows: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens drawn from the ``count`` likeliest, and whether these hold all that each row may draw.

    ``count`` is not below any ``top_k`` that leaves tokens out.
    """
    vocabulary = rows.scores.shape[-1]
    values, ids = _likeliest(rows.scores, count)
    weights = (values - values[:, :1]).to(_widest(values)).exp()
    weights = weights * (torch.arange(count, device=values.device) < rows.top_k)
    mass = weights.cumsum(dim=-1)
    bounded = rows.top_k < vocabulary
    # Where top-k does not bound them, the probabilities are shares of the whole vocabulary.
    everything = (rows.scores - values[:, :1]).exp().sum(dim=-1, keepdim=True, dtype=mass.dtype)
    target = rows.top_p * torch.where(bounded, mass[:, -1:], everything)
    # A token stays when the mass before it has not reached top_p; the likeliest one always does.
    before = mass - weights
    kept = ((before < target) | (before == 0)) & (weights >= rows.min_p)
    enough = bounded | (mass[:, -1:] >= target) | (weights[:, -1:] < rows.min_p)
    return ids.gather(-1, _invert((weights * kept).cumsum(dim=-1), rows.uniforms))[:, 0], enough[:, 0]


def _likeliest(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest scores of each row and their ids, the highest first."""
    if count == scores.shape[-1]:
        return scores.sort(dim=-1, descending=True, stable=True)
    # Which of equal scores comes first is up to topk, and on a GPU to the size of the batch.
    ids = scores.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
    values, order = scores.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)


def _invert(cumulated: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The first place of each row, ``(rows, 1)``, where the cumulated weights exceed that share of their sum."""
    below_one = 1 - torch.finfo(cumulated.dtype).eps / 2
    target = uniforms.to(cumulated.dtype).clamp(max=below_one) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, target, right=True).clamp(max=cumulated.shape[-1] - 1)


def _logprobs(logits: torch.Tensor, token_ids: list[int], choosers: Sequence[Chooser]) -> dict[int, Logprob]:
    """By row, for the rows that ask for them."""
    asked = [row for row, chooser in enumerate(choosers) if chooser.logprobs is not None and token_ids[row] >= 0]
    if not asked:
        return {}
    logarithms = torch.log_softmax(_wide(logits[asked]), dim=-1)
    chosen = torch.tensor([token_ids[row] for row in asked], device=logits.device)
    own = logarithms.gather(-1, chosen[:, None])[:, 0].tolist()
    most = max(choosers[row].logprobs or 0 for row in asked)
    values, ids = logarithms.topk(min(most, logits.shape[-1]), dim=-1)
    found = {}
    for row, logprob, top_ids, top_values in zip(asked, own, ids.tolist(), values.tolist(), strict=True):
        # A masked token has no probability, and no logarithm that JSON could hold.
        top = [(i, v) for i, v in zip(top_ids, top_values, strict=True) if math.isfinite(v)]
        found[row] = Logprob(token_ids[row], logprob, tuple(top[: choosers[row].logprobs]))
    return found


def _wide(scores: torch.Tensor) -> torch.Tensor:
    """At least 32 bits, so that sums over a vocabulary are sums."""
    return scores if scores.dtype == torch.float64 else scores.float()


def _widest(scores: torch.Tensor) -> torch.dtype:
    # Apple's devices have no 64-bit floating point.
    return torch.float32 if scores.device.type == "mps" else torch.float64


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=_widest(like)).to(like.device)[:, None]
