"""Generation in PyTorch over any decoder of transformers: continuous batching, shared prefixes, adapters by row.

Requests are answered together where the model computes the same so (:mod:`whetstone.engine.torch_core`), and one after
the other where it does not. Adapters can be put on and taken off while requests run.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedModel

from whetstone.data.template import Template
from whetstone.engine.decoder import batched
from whetstone.engine.torch_core import TorchCore
from whetstone.engine.transformers_source import TransformersCore
from whetstone.engine.worker import Core, Worker
from whetstone.errors import UserError
from whetstone.models.device import limit_threads
from whetstone.models.load import context_tokens, end_ids

__all__ = ["TorchEngine"]


class _AdaptedCore(Core, Protocol):
    """A core over a model that adapters are put on; all of it but the counts happens between two steps."""

    def load_adapter(self, name: str, folder: Path) -> None: ...

    def unload_adapter(self, name: str) -> None: ...

    def check_prompt(self, token_ids: Sequence[int], adapter: str | None) -> None: ...

    def hidden_sums(self, token_ids: Sequence[int], adapter: str | None) -> Iterator[torch.Tensor]: ...

    def forget(self) -> None: ...

    @property
    def cache_bytes(self) -> int | None: ...

    @property
    def cache_tokens(self) -> int | None: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...


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
        self._adapted: _AdaptedCore
        if made is None:
            self._adapted = TransformersCore(model, adapters or {}, tokenizer, stop_ids=stop_ids, context_tokens=limit)
        else:
            self._adapted = TorchCore(
                made, tokenizer, stop_ids=stop_ids, context_tokens=limit, max_rows=max_rows, cache_bytes=cache_bytes
            )
        super().__init__(self._adapted)

    def forget(self) -> None:
        """Forgets the prefixes of earlier requests, so that what follows is computed as if it came first."""
        self.between_steps(self._adapted.forget)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Puts one more adapter on the weights, while requests run; waits until it can be asked.

        Whether its answers are exact is tried as when an engine is opened. The answers of the base and of other
        adapters go on as if nothing had happened, but for the pause.

        Args:
            name: What requests will call it.
            folder: A LoRA adapter as PEFT saves it.

        Raises:
            UserError: The name is taken, or the adapter cannot be read or put on this model; all is as it was then.
        """
        self.do_between_steps(lambda: self._adapted.load_adapter(name, folder))

    def unload_adapter(self, name: str) -> None:
        """Takes an adapter off and gives its memory back; what it is answering, or was to answer, is cancelled.

        Raises:
            UserError: There is none of this name.
        """
        self.do_between_steps(lambda: self._adapted.unload_adapter(name))

    def embed(self, token_ids: Sequence[int], adapter: str | None = None) -> list[float]:
        """A text as a vector of length 1: the mean over its tokens of what the last layer says after the last norm.

        It is read between the steps of running requests, at most 1,024 tokens at a time.

        Args:
            token_ids: The text.
            adapter: Which adapter reads it; None for the base.

        Raises:
            UserError: It is empty or too long, or what comes of it are no numbers.
        """
        self._adapted.check_prompt(token_ids, adapter)
        parts = self._adapted.hidden_sums(token_ids, adapter)
        total = self.do_between_steps(lambda: next(parts))
        while (more := self.do_between_steps(lambda: next(parts, None))) is not None:
            total = total + more
        mean = total / len(token_ids)
        if not mean.isfinite().all():
            raise UserError("the last layer says what are not numbers; the weights or the adapter are broken")
        vector: list[float] = torch.nn.functional.normalize(mean, dim=0).tolist()
        return vector

    @property
    def cache_bytes(self) -> int | None:
        """Memory that is taken for keys and values; None where the model keeps them itself.

        This and the other counts may be asked from any thread, and may be of a moment within a step.
        """
        return self._adapted.cache_bytes

    @property
    def cache_tokens(self) -> int | None:
        """Tokens whose keys and values are there, of running and earlier requests; None as for ``cache_bytes``."""
        return self._adapted.cache_tokens

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return self._adapted.running

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return self._adapted.waiting
