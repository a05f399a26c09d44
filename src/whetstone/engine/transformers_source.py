"""Models whose attention cannot be ours (ALiBi, recurrent layers), one request at a time through their own forward."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import DynamicCache, PreTrainedModel

from whetstone.engine.adapters import AdapterBank, Share

__all__ = ["TransformersSource"]

_TRIED_TOKENS = 6


class TransformersSource:
    """Reads one sequence; see :class:`whetstone.engine.one_at_a_time.LogitsSource`.

    Keys and values are cached where the model computes the same with transformers' plain cache, which is tried once;
    where it does not, each token is computed with all that stand before it.
    """

    reused_tokens = 0

    def __init__(self, model: PreTrainedModel, adapters: Mapping[str, Path]) -> None:
        """Puts the adapters on the model.

        Raises:
            UserError: An adapter does not fit the model, or cannot be read.
        """
        self._model = model
        self._cached = False
        self._bank = AdapterBank(model, adapters)
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

    def close(self) -> None:
        """Gives memory back."""
        self._cache = None

    @torch.inference_mode()
    def _read(self, token_ids: Sequence[int]) -> torch.Tensor:
        self._ids.extend(token_ids)
        new = list(token_ids) if self._cached else self._ids
        every = slice(None)
        shares = [] if self._adapter is None else [Share(self._adapter, every, every)]
        with self._bank.sharing(shares, len(new)):
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
