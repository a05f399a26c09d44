"""Models whose attention cannot be ours (ALiBi, recurrent layers), one request at a time through their own forward."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from whetstone.engine.adapters import AdapterBank, Share
from whetstone.engine.answer import Answer
from whetstone.engine.api import Request
from whetstone.engine.hidden import last_states
from whetstone.engine.one_at_a_time import OneAtATime
from whetstone.engine.worker import Listener
from whetstone.errors import UserError

__all__ = ["TransformersCore", "TransformersSource"]

_TRIED_TOKENS = 6


class TransformersSource:
    """Reads one sequence; see :class:`whetstone.engine.one_at_a_time.LogitsSource`.

    Keys and values are cached where the model computes the same with transformers' plain cache, which is tried once;
    where it does not, each token is computed with all that stand before it.

    Attributes:
        bank: The adapters that are on the model.
    """

    reused_tokens = 0

    def __init__(self, model: PreTrainedModel, adapters: Mapping[str, Path]) -> None:
        """Puts the adapters on the model.

        Raises:
            UserError: An adapter does not fit the model, or cannot be read.
        """
        self._model = model
        self._cached = False
        self.bank = AdapterBank(model, adapters)
        self._adapter: str | None = None
        self._ids: list[int] = []
        self._cache: DynamicCache | None = None
        self._cached = self._can_cache()

    def start(self, token_ids: Sequence[int], adapter: str | None) -> torch.Tensor:
        """Begins a new sequence and gives the logits ``(vocabulary,)`` of the token after it."""
        self._ids, self._adapter = [], adapter
        self._cache = DynamicCache(config=self._model.config) if self._cached else None
        return self._read(token_ids)

    def advance(self, token_id: int) -> torch.Tensor:
        """Reads one more token of the sequence and gives the logits ``(vocabulary,)`` of the next."""
        return self._read([token_id])

    @torch.inference_mode()
    def hidden_sum(self, token_ids: Sequence[int], adapter: str | None) -> torch.Tensor:
        """The sum over the tokens of a text of what the last layer says after the last norm, ``(size,)``."""
        ids = torch.tensor([token_ids], device=self._model.device)
        with self.bank.sharing(_shares(adapter), len(token_ids)):
            return last_states(self._model, ids).float().sum(dim=0)

    def close(self) -> None:
        """Gives memory back."""
        self._cache = None

    @torch.inference_mode()
    def _read(self, token_ids: Sequence[int]) -> torch.Tensor:
        self._ids.extend(token_ids)
        new = list(token_ids) if self._cached else self._ids
        with self.bank.sharing(_shares(self._adapter), len(new)):
            output = self._model(
                input_ids=torch.tensor([new], device=self._model.device),
                past_key_values=self._cache,
                use_cache=self._cached,
            )
        logits: torch.Tensor = output.logits[0, -1]
        return logits

    def _can_cache(self) -> bool:
        ids = [index % self._model.config.vocab_size for index in range(2, 2 + _TRIED_TOKENS)]
        expected = self.start(ids, None)
        self._cached = True
        try:
            self.start(ids[:-1], None)
            return bool(torch.allclose(self.advance(ids[-1]), expected, rtol=1e-2, atol=1e-2))
        except (AttributeError, TypeError, ValueError, IndexError, NotImplementedError):
            # What a model that keeps no keys makes of a cache of keys is its own affair.
            return False
        finally:
            self._cached = False


class TransformersCore(OneAtATime):
    """Answers requests of a model and its adapters, one after the other."""

    cache_bytes = None
    cache_tokens = None

    def __init__(
        self,
        model: PreTrainedModel,
        adapters: Mapping[str, Path],
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: frozenset[int],
        context_tokens: int,
    ) -> None:
        """Takes the model over, and puts the adapters on it.

        Raises:
            UserError: An adapter does not fit the model, or cannot be read.
        """
        source = TransformersSource(model, adapters)
        super().__init__(
            source,
            tokenizer,
            stop_ids=stop_ids,
            context_tokens=context_tokens,
            adapters=frozenset(source.bank.digests),
        )
        self._reader = source

    def submit(self, request: Request, listener: Listener) -> Answer:
        """Queues a request; one whose adapter has left since it was checked is cancelled."""
        answer = super().submit(request, listener)
        if request.adapter is not None and request.adapter not in self._reader.bank.digests:
            self.cancel(answer)
        return answer

    def load_adapter(self, name: str, folder: Path) -> None:
        """Puts one more adapter on the model; one that is refused leaves it as it was.

        Raises:
            UserError: It does not fit the model, cannot be read, or has a name that is taken.
        """
        self._reader.bank.load(name, folder)
        self.limits = replace(self.limits, adapters=frozenset(self._reader.bank.digests))

    def unload_adapter(self, name: str) -> None:
        """Cancels the answers of an adapter and takes it off.

        Raises:
            UserError: There is none of this name.
        """
        if name not in self._reader.bank.digests:
            raise UserError(f"no adapter '{name}' is loaded; it cannot be unloaded")
        self.cancel_adapter(name)
        self._reader.bank.unload(name)
        self.limits = replace(self.limits, adapters=frozenset(self._reader.bank.digests))

    def check_prompt(self, token_ids: Sequence[int], adapter: str | None) -> None:
        """Refuses a text that can never be read; see :meth:`whetstone.engine.limits.Limits.check_prompt`."""
        self.limits.check_prompt(token_ids, adapter)

    def hidden_sums(self, token_ids: Sequence[int], adapter: str | None) -> Iterator[torch.Tensor]:
        """Reads a text at once and gives one sum over its tokens, ``(size,)``."""
        self.check_prompt(token_ids, adapter)
        yield self._reader.hidden_sum(token_ids, adapter)

    def forget(self) -> None:
        """Nothing is kept of earlier requests."""


def _shares(adapter: str | None) -> list[Share]:
    every = slice(None)
    return [] if adapter is None else [Share(adapter, every, every)]
