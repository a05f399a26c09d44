"""Generation in plain PyTorch over any decoder of transformers: a padded batch, a key-value cache, a loop.

Notable: finished sequences leave the batch, so that long answers do not pay for short ones; every request draws from
its own random stream. Floating-point results depend on the shape of the batch in the last bits, so a comparison gives
all arms the same batches in the same order.
"""

import time
from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from whetstone.engine.api import Completion, Request, Timing
from whetstone.engine.sampling import choose_token
from whetstone.errors import UserError
from whetstone.models.load import context_tokens

__all__ = ["TorchEngine"]


class _Sequence:
    """The state of one request while it is being answered."""

    def __init__(self, request: Request, stop_ids: frozenset[int]) -> None:
        self.request = request
        self.token_ids: list[int] = []
        self.token_s: list[float] = []
        self._stop_ids = stop_ids
        self._generator = torch.Generator().manual_seed(request.seed)

    def advance(self, logits: torch.Tensor, greedy_id: int) -> None:
        sampling = self.request.sampling
        token_id = choose_token(logits, sampling, self._generator) if sampling.temperature > 0 else greedy_id
        self.token_ids.append(token_id)
        self.token_s.append(time.monotonic())

    @property
    def stopped(self) -> bool:
        return self.token_ids[-1] in self._stop_ids

    @property
    def finished(self) -> bool:
        return self.stopped or len(self.token_ids) == self.request.max_new_tokens

    def completion(self, queued_s: float) -> Completion:
        timing = Timing(queued_s, tuple(self.token_s))
        return Completion(tuple(self.token_ids), "stop" if self.stopped else "length", timing)


class TorchEngine:
    """Answers batches of requests with one model on its device."""

    def __init__(self, model: PreTrainedModel, stop_ids: frozenset[int], pad_id: int) -> None:
        """Keeps the model as it is.

        Args:
            model: In evaluation mode, on its device.
            stop_ids: Tokens that end an answer.
            pad_id: Any token id; padding is masked out.
        """
        self._model = model
        self._stop_ids = stop_ids
        self._pad_id = pad_id
        self._context_tokens = context_tokens(model.config)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers the requests as one batch.

        Raises:
            UserError: A prompt and its answer may exceed the model's context; nothing is truncated silently.
        """
        for request in requests:
            longest = len(request.token_ids) + request.max_new_tokens
            if longest > self._context_tokens:
                raise UserError(
                    f"a prompt of {len(request.token_ids)} tokens and an answer of {request.max_new_tokens} exceed "
                    f"the model's context of {self._context_tokens}; lower max_new_tokens or shorten the prompt"
                )
        queued_s = time.monotonic()
        sequences = [_Sequence(request, self._stop_ids) for request in requests]
        self._run(sequences)
        return [sequence.completion(queued_s) for sequence in sequences]

    def _run(self, sequences: list[_Sequence]) -> None:
        input_ids, attention_mask = self._left_padded([sequence.request.token_ids for sequence in sequences])
        position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        active = sequences
        while True:
            output = self._model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            # One transfer for all rows: a device is asked once a step, not once a sequence.
            greedy_ids = output.logits[:, -1].argmax(dim=-1).tolist()
            for sequence, logits, greedy_id in zip(active, output.logits[:, -1], greedy_ids, strict=True):
                sequence.advance(logits, greedy_id)
            going = [row for row, sequence in enumerate(active) if not sequence.finished]
            if not going:
                return
            if len(going) < len(active):
                rows = torch.tensor(going, device=attention_mask.device)
                cache.batch_select_indices(rows)
                attention_mask, position_ids = attention_mask[rows], position_ids[rows]
                active = [active[row] for row in going]
            last = [[sequence.token_ids[-1]] for sequence in active]
            input_ids = torch.tensor(last, device=attention_mask.device)
            attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(active), 1)], dim=1)
            position_ids = position_ids[:, -1:] + 1

    def _left_padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, each ``(batch, tokens)``, with the prompts' ends aligned."""
        width = max(len(prompt) for prompt in prompts)
        ids = [[self._pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
