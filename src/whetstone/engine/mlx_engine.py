"""Generation by mlx-lm: the models of Apple silicon, and of Linux processors in its CPU build.

Everything is computed in the thread that steps, and whole before it is handed on: what MLX has put off belongs to the
thread that put it off.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from whetstone.data.template import Template
from whetstone.engine.one_at_a_time import OneAtATime
from whetstone.engine.worker import Worker
from whetstone.errors import UserError
from whetstone.models.mlx import MlxModel, load_mlx

try:
    import mlx.core as mx
    from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
except (ImportError, OSError, ValueError) as error:
    raise UserError(f"mlx-lm cannot be used here ({error}): pip install 'whetstone[mlx]'") from None

__all__ = ["MlxSource", "mlx_engine"]

_PREFILL_TOKENS = 512
"""Prompt tokens that are computed at once, which bounds the memory that a long prompt takes."""


class MlxSource:
    """Logits of one sequence at a time; the next one takes over what it shares with the last.

    Attributes:
        reused_tokens: Prompt tokens that the last :meth:`start` did not compute.
    """

    def __init__(self, loaded: MlxModel, *, cache_bytes: int | None = None) -> None:
        """Computes nothing.

        Args:
            loaded: The model.
            cache_bytes: Keys and values that take more are not kept for the next sequence; None keeps them all.
        """
        self.reused_tokens = 0
        self._model = loaded.model
        self._cache_bytes = cache_bytes
        self._held: list[int] = []
        self._cache: list[Any] = []

    def start(self, token_ids: Sequence[int], adapter: str | None = None) -> torch.Tensor:
        """Logits ``(vocabulary,)`` after a prompt, which has at least one token."""
        self.reused_tokens = self._keep_common(token_ids)
        # The output head is as wide as the vocabulary, and is asked for the last token only.
        last = len(token_ids) - 1
        for first in range(self.reused_tokens, last, _PREFILL_TOKENS):
            self._feed(token_ids[first : min(first + _PREFILL_TOKENS, last)], wanted=False)
        return self.advance(token_ids[-1])

    def advance(self, token_id: int) -> torch.Tensor:
        """Logits ``(vocabulary,)`` after one more token, in float32."""
        return torch.from_numpy(np.array(self._feed([token_id], wanted=True)))

    def close(self) -> None:
        """Gives the model and the keys and values back."""
        self._forget()
        self._model = None
        mx.clear_cache()

    def _keep_common(self, token_ids: Sequence[int]) -> int:
        """Cuts the cache down to what the prompt begins with, its last token excepted, and says how much that is."""
        common = 0
        for held, asked in zip(self._held, token_ids[:-1], strict=False):
            if held != asked:
                break
            common += 1
        surplus = len(self._held) - common
        held_bytes = sum(layer.nbytes for layer in self._cache)
        too_much = self._cache_bytes is not None and held_bytes > self._cache_bytes
        if common == 0 or too_much or (surplus > 0 and not can_trim_prompt_cache(self._cache)):
            self._forget()
            self._cache = make_prompt_cache(self._model)
            return 0
        trim_prompt_cache(self._cache, surplus)
        del self._held[common:]
        return common

    def _feed(self, token_ids: Sequence[int], *, wanted: bool) -> mx.array:
        """Computes more tokens, and the logits ``(vocabulary,)`` after the last one where they are wanted."""
        try:
            computed = self._model(mx.array([list(token_ids)]), cache=self._cache)
            logits: mx.array = computed[0, -1].astype(mx.float32)
            mx.eval([layer.state for layer in self._cache], *([logits] if wanted else []))
        except BaseException:
            # Some layers may have taken the tokens and others not.
            self._forget()
            raise
        self._held += token_ids
        return logits

    def _forget(self) -> None:
        self._held, self._cache = [], []


def mlx_engine(
    folder: Path,
    template: Template,
    *,
    adapter: Path | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    cache_bytes: int | None = None,
) -> Worker:
    """Opens a model directory with mlx-lm; answers come one after the other.

    Args:
        folder: A model directory.
        template: Of the same tokenizer.
        adapter: A PEFT folder, put on for every request.
        dtype: Of the weights; None leaves them as they are.
        cache_bytes: Keys and values that take more are not kept for the next request.

    Raises:
        UserError: mlx-lm cannot load the model, or the adapter does not fit.
    """
    loaded = load_mlx(folder, dtype=dtype, adapter=adapter)
    source = MlxSource(loaded, cache_bytes=cache_bytes)
    stop_ids = template.stop_ids(loaded.end_ids)
    return Worker(OneAtATime(source, template.tokenizer, stop_ids=stop_ids, context_tokens=loaded.context_tokens))
