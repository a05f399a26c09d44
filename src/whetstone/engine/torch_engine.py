"""Generation in PyTorch over any decoder of transformers: continuous batching, shared prefixes, adapters by row.

Every step computes what each running request needs next: the tokens of its prompt that are not computed yet, or the
token that it said last. New requests join at any step, finished ones leave at once. Requests never see each other:
beside rounding, each gets the tokens that it gets alone.

Notable: a batch of prompts is computed as the trie that it is. A prompt that begins like one that is being computed
waits until the shared part is there and then takes it over (:mod:`whetstone.engine.slab`).
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whetstone.data.template import Template
from whetstone.engine.adapters import Share
from whetstone.engine.answer import Answer
from whetstone.engine.api import Request
from whetstone.engine.constraint import GrammarMaker
from whetstone.engine.deadlines import Deadlines
from whetstone.engine.decoder import Batched, batched
from whetstone.engine.flat import Piece, Step, flat_step
from whetstone.engine.limits import Limits
from whetstone.engine.one_at_a_time import OneAtATime
from whetstone.engine.sampling import Chooser, choose
from whetstone.engine.slab import KeyValueStore, Row
from whetstone.engine.transformers_source import TransformersSource
from whetstone.engine.worker import Listener, Worker
from whetstone.errors import UserError
from whetstone.models.device import limit_threads
from whetstone.models.load import context_tokens, end_ids

__all__ = ["TorchEngine"]

_PREFILL_TOKENS = 1024
"""Prompt tokens that one step computes at most, so that running answers do not wait for a long prompt."""


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
        self._decoder, self._digests = model.decoder, model.digests
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
        """Queues a request."""
        answer = Answer(request, self._tokenizer, self._stop_ids, listener)
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
            owner = "" if request.adapter is None else self._digests[request.adapter]
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
        logits = self._decoder(step, shares)
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


class TorchEngine(Worker):
    """Answers requests with one model, and with adapters on it."""

    def __init__(
        self,
        model: PreTrainedModel,
        template: Template,
        *,
        stop_ids: frozenset[int] | None = None,
        adapters: Mapping[str, Path] | None = None,
        max_rows: int = 64,
        cache_bytes: int | None = None,
    ) -> None:
        """Takes the model over: its attention becomes the engine's, and the adapters are put on it.

        A model that does not compute the same with this attention answers one request at a time.

        Args:
            model: Without adapters, in evaluation mode, on its device.
            template: What it is asked with.
            stop_ids: Tokens that end an answer; those of the template and of the model's own settings if not said.
            adapters: Folders of LoRA adapters, by the names that requests give.
            max_rows: How many requests are answered at once; more wait.
            cache_bytes: Memory for keys and values; a part of what is free if it is not said.

        Raises:
            UserError: An adapter does not fit the model, or cannot be read; or no request may run.
        """
        if max_rows < 1:
            raise UserError(f"max_rows: {max_rows}; let at least one request run")
        if stop_ids is None:
            stop_ids = template.stop_ids(end_ids(model))
        if model.device.type == "cpu":
            limit_threads()
        tokenizer, limit = template.tokenizer, context_tokens(model.config)
        made = batched(model, adapters or {})
        self._batching: TorchCore | None = None
        if made is None:
            source = TransformersSource(model, adapters or {})
            adapted = frozenset(adapters or {})
            super().__init__(OneAtATime(source, tokenizer, stop_ids=stop_ids, context_tokens=limit, adapters=adapted))
        else:
            self._batching = TorchCore(
                made, tokenizer, stop_ids=stop_ids, context_tokens=limit, max_rows=max_rows, cache_bytes=cache_bytes
            )
            super().__init__(self._batching)

    def forget(self) -> None:
        """Forgets the prefixes of earlier requests, so that what follows is computed as if it came first."""
        if self._batching is not None:
            self.between_steps(self._batching.forget)


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
