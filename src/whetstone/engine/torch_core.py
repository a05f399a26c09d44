"""The scheduler of the torch engine: which tokens of which requests are computed in each step.

Every step computes what each running request needs next: the tokens of its prompt that are not computed yet, or the
token that it said last. New requests join at any step, finished ones leave at once. Requests never see each other:
beside rounding, each gets the tokens that it gets alone.

Notable: a batch of prompts is computed as the trie that it is. A prompt that begins like one that is being computed
waits until the shared part is there and then takes it over (:mod:`whetstone.engine.slab`).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch
from transformers import PreTrainedTokenizerBase

from whetstone.engine.adapters import Share
from whetstone.engine.answer import Answer
from whetstone.engine.api import Request
from whetstone.engine.constraint import GrammarMaker
from whetstone.engine.deadlines import Deadlines
from whetstone.engine.decoder import Batched
from whetstone.engine.flat import Piece, Step, flat_step
from whetstone.engine.limits import Limits
from whetstone.engine.sampling import Chooser, choose
from whetstone.engine.slab import KeyValueStore, Row, Slab
from whetstone.engine.worker import Listener
from whetstone.errors import UserError

__all__ = ["TorchCore"]

_PREFILL_TOKENS = 1024
"""Prompt tokens that one step computes at most, so that running answers do not wait for a long prompt."""

_BASE = ""
"""Under this instead of the digest of an adapter, keys and values of the base are kept."""


@dataclass(slots=True, eq=False)
class _Running:
    """A request that has a row."""

    answer: Answer
    chooser: Chooser
    row: Row
    prompt: Sequence[int]

    def next_ids(self) -> Sequence[int]:
        """What is not computed yet."""
        held = self.row.held
        if held < len(self.prompt):
            return self.prompt[held:]
        return self.answer.token_ids[held - len(self.prompt) :]


class TorchCore:
    """Advances requests over one model; see :class:`whetstone.engine.worker.Core`."""

    def __init__(
        self,
        model: Batched,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: frozenset[int],
        context_tokens: int,
        max_rows: int,
        cache_bytes: int | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._grammars = GrammarMaker(tokenizer, stop_ids)
        self._model = model
        self._limits = Limits(context_tokens, "the model's context", model.vocabulary, tuple(model.digests))
        self._device = model.shape.device
        budget_bytes = cache_bytes or _spare_bytes(self._device)
        self._store = KeyValueStore(model.shape, max_rows=max_rows, budget_bytes=budget_bytes)
        self._scanned = 2 * max_rows
        self._waiting: deque[tuple[Answer, npt.NDArray[np.int64]]] = deque()
        self._running: list[_Running] = []
        self._deadlines = Deadlines()

    def check(self, request: Request) -> None:
        """Refuses what can never be answered.

        Raises:
            UserError: It is longer than the context or the memory, or asks for what is not there.
        """
        self._limits.check(request)
        self._store.check(len(request.token_ids) + request.max_new_tokens)
        if request.constraint is not None:
            self._grammars.make(request.constraint)

    def submit(self, request: Request, listener: Listener) -> Answer:
        """Queues a request; one whose adapter has left since it was checked is cancelled."""
        answer = Answer(request, self._tokenizer, self._stop_ids, listener)
        if self._owner(request.adapter) is None:
            answer.finish("cancelled")
            return answer
        self._deadlines.add(answer)
        self._waiting.append((answer, np.asarray(request.token_ids, dtype=np.int64)))
        return answer

    def cancel(self, answer: Answer) -> None:
        """Ends a request and frees its row."""
        answer.finish("cancelled")
        self._leave()

    def forget(self) -> None:
        """Forgets the prefixes of earlier requests."""
        self._store.forget()

    def load_adapter(self, name: str, folder: Path) -> None:
        """Puts one more adapter on the model; see :meth:`whetstone.engine.decoder.Batched.load`."""
        self._model.load(name, folder)
        self._limits = replace(self._limits, adapters=tuple(self._model.digests))

    def unload_adapter(self, name: str) -> None:
        """Cancels the answers of an adapter, takes it off, and forgets what it computed.

        Raises:
            UserError: There is none of this name.
        """
        digest = self._model.digests.get(name)
        if digest is None:
            raise UserError(f"no adapter '{name}' is loaded; it cannot be unloaded")
        for answer in [*(one.answer for one in self._running), *(answer for answer, _ in self._waiting)]:
            if answer.request.adapter == name:
                answer.finish("cancelled")
        self._leave()
        self._model.unload(name)
        self._limits = replace(self._limits, adapters=tuple(self._model.digests))
        if digest not in self._model.digests.values():
            self._store.forget(digest)

    @torch.inference_mode()
    def hidden_sums(self, token_ids: Sequence[int], adapter: str | None) -> Iterator[torch.Tensor]:
        """Reads a text in parts, each of which may come between other steps.

        Yields:
            For each part, the sum over its tokens of what the last layer says after the last norm, ``(size,)``.
        """
        self.check_prompt(token_ids, adapter)
        every = slice(None)
        shares = [] if adapter is None else [Share(adapter, every, every)]
        slab, owner = Slab(self._model.shape, rows=1, tokens=len(token_ids)), self._owner(adapter)
        for start in range(0, len(token_ids), _PREFILL_TOKENS):
            if self._owner(adapter) != owner:
                raise UserError(f"the adapter '{adapter}' was unloaded while it read a text; load it and ask again")
            step = flat_step([Piece(slab, 0, start, token_ids[start : start + _PREFILL_TOKENS])], self._device)
            yield self._model.hidden(step, shares).float().sum(dim=0)

    def check_prompt(self, token_ids: Sequence[int], adapter: str | None) -> None:
        """Refuses a text that can never be read.

        Raises:
            UserError: It is longer than the context or the memory, or asks for what is not there.
        """
        self._limits.check_prompt(token_ids, adapter)
        self._store.check(len(token_ids))

    @property
    def cache_bytes(self) -> int:
        """Memory that is taken for keys and values."""
        return self._store.bytes

    @property
    def cache_tokens(self) -> int:
        """Tokens whose keys and values are there."""
        return self._store.held_tokens

    @property
    def running(self) -> int:
        """How many requests have a row."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait for a row; those that were cancelled meanwhile are counted until it is their turn."""
        return len(self._waiting)

    def close(self) -> None:
        """Gives the memory of keys and values back."""
        self._waiting.clear()
        self._running.clear()
        self._store.close()

    @torch.inference_mode()
    def step(self) -> bool:
        """Computes the next token of every running request, and a part of the prompts of new ones."""
        if self._deadlines.end_late():
            self._leave()
        self._admit()
        pieces, asked = self._plan()
        if pieces:
            self._compute(pieces, asked)
            self._leave()
        return bool(self._running or self._waiting)

    def _owner(self, adapter: str | None) -> str | None:
        """What keys and values of an adapter are kept under; None where there is none of this name."""
        return _BASE if adapter is None else self._model.digests.get(adapter)

    def _leave(self) -> None:
        """Frees the rows of finished requests. Those that still wait are forgotten when it is their turn."""
        running = []
        for one in self._running:
            if one.answer.completion is None:
                running.append(one)
            else:
                proven = one.answer.completion.finish_reason != "error" and bool(one.answer.token_ids)
                self._store.release(one.row, proven=proven)
        self._running = running

    def _admit(self) -> None:
        """Gives rows to waiting requests, first come first served, but for those that soon have less to compute."""
        skipped: list[tuple[Answer, npt.NDArray[np.int64]]] = []
        while self._waiting and len(skipped) < self._scanned and not self._store.full:
            answer, prompt = self._waiting.popleft()
            if answer.completion is not None:
                continue
            request = answer.request
            owner = self._model.digests[request.adapter] if request.adapter is not None else _BASE
            match = self._store.match(prompt, owner)
            if match.worth_waiting:
                skipped.append((answer, prompt))
                continue
            row = self._store.place(prompt, owner, len(prompt) + request.max_new_tokens, match)
            if row is None:
                skipped.append((answer, prompt))
                break
            answer.reused_tokens = row.reused
            grammar = None if request.constraint is None else self._grammars.make(request.constraint)
            self._running.append(_Running(answer, Chooser(request, grammar), row, request.token_ids))
        self._waiting.extendleft(reversed(skipped))

    def _plan(self) -> tuple[list[Piece], list[_Running]]:
        """What this step computes: the last tokens of all answers, and of prompts as much as one step may."""
        for slab in self._store.slabs:
            slab.close_ranks()
        left = _PREFILL_TOKENS
        pieces, asked = [], []
        for running in self._running:
            ids = running.next_ids()
            if len(ids) > 1 or not running.answer.token_ids:
                ids = ids[:left]
                left -= len(ids)
            if ids:
                pieces.append(Piece(running.row.slab, running.row.index, running.row.held, ids))
                asked.append(running)
        return pieces, asked

    def _compute(self, pieces: list[Piece], asked: list[_Running]) -> None:
        step = flat_step(pieces, self._device)
        ordered = [asked[index] for index in step.order]
        shares = _shares(ordered, step)
        for index in step.order:
            asked[index].row.extend(list(pieces[index].token_ids))
        ready = [place for place, running in enumerate(ordered) if len(running.prompt) <= running.row.held]
        logits = self._model(step, shares)
        if not ready:
            return
        if len(ready) < len(ordered):
            logits = logits[torch.tensor(ready, device=logits.device)]
        choosers = [ordered[place].chooser for place in ready]
        for place, chooser, choice in zip(ready, choosers, choose(logits, choosers), strict=True):
            answer = ordered[place].answer
            if choice.token_id is None:
                answer.finish("error", choice.error)
                continue
            answer.add(choice.token_id, choice.logprob)
            if chooser.ended:
                answer.finish("stop")


def _shares(ordered: Sequence[_Running], step: Step) -> list[Share]:
    """Which tokens of the flat row belong to which adapter."""
    names = [running.answer.request.adapter for running in ordered]
    device = step.last.device
    ends = (step.last + 1).tolist()
    shares = []
    for name in dict.fromkeys(names):
        if name is not None and len(set(names)) == 1:
            shares.append(Share(name, slice(None), slice(None)))
        elif name is not None:
            mine = [index for index, other in enumerate(names) if other == name]
            tokens = [place for index in mine for place in range(ends[index - 1] if index else 0, ends[index])]
            shares.append(Share(name, torch.tensor(tokens, device=device), torch.tensor(mine, device=device)))
    return shares


def _spare_bytes(device: torch.device) -> int:
    """What keys and values may take: most of what is free on a GPU, a quarter of it where programs share memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * 0.8)
    return int(psutil.virtual_memory().available // 4)
