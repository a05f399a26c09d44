"""The loss: cross-entropy summed over the answers' tokens, computed on tries, with logits only where one is predicted.

Notable: a trie is exact for a causal decoder that takes its positions and its attention mask from outside. Whether an
architecture does is not looked up but tried, on a few rows, before training: where the hidden states of the trie differ
from those of the padded batch, rows are padded as everywhere else, and the run says so. The same trial finds out
whether the output head is a plain product, so that its logits need not be held.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from whetstone.train.batch import IGNORE, Row, collate, cut_padding
from whetstone.train.head import compiled_head_loss, head_loss
from whetstone.train.packing import CostModel, pack
from whetstone.trie import TrieBatch, build_trie, pad_tries, shared_prefixes, sorted_order

__all__ = ["Loss", "PartLoss", "completion_loss", "row_losses", "trie_loss"]

_TRIAL_TOKENS = 128

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}
"""Relative difference of hidden states that is still rounding, by type; a wrong mask or position gives 0.1 to 2."""


def completion_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum (not mean) of the cross-entropy over the labelled tokens of a padded batch: :func:`row_losses`, summed."""
    return row_losses(model, batch).sum()


def row_losses(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the cross-entropy over the labelled tokens of each row of a padded batch.

    Prompts differ in length within a batch, so logits are computed at the columns where *any* row predicts an answer
    token; the vocabulary projection over the common part of the prompts is never computed.

    Args:
        model: A causal language model of transformers, bare or wrapped by PEFT.
        batch: ``input_ids``, ``attention_mask``, ``labels``, each ``(batch, tokens)``.

    Returns:
        ``(batch,)``, in float32 or in the model's own type where that is wider.
    """
    targets = batch["labels"][:, 1:]
    columns = (targets != IGNORE).any(dim=0).nonzero().squeeze(1)
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        logits_to_keep=columns,
        use_cache=False,
    ).logits
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(
        wide.flatten(0, 1), targets[:, columns].flatten(), ignore_index=IGNORE, reduction="none"
    )
    return losses.view(len(targets), -1).sum(dim=1)


def trie_loss(model: PreTrainedModel, batch: TrieBatch, *, plain_head: bool, compiled: bool = False) -> torch.Tensor:
    """Sum of the cross-entropy over the learned tokens of a batch of tries.

    With LoRA dropout a node that several rows share draws one mask; without dropout the loss and its gradients are
    those of :func:`completion_loss`.

    Args:
        model: A causal language model of transformers, not wrapped, though its layers may hold an adapter.
        batch: The tries, on the model's device.
        plain_head: Whether the logits are the head's product and nothing else.
        compiled: Whether a plain head is compiled, as the layers are.

    Returns:
        A scalar, in float32 or in the model's own type where that is wider.
    """
    head = model.get_output_embeddings()
    if plain_head:
        hidden = _hidden(model, batch).flatten(0, 1)[batch.predictors].to(_product_dtype(model, batch.input_ids))
        return (compiled_head_loss if compiled else head_loss)(hidden, head, batch)
    pick = head.register_forward_pre_hook(partial(_pick, batch.predictors))
    try:
        logits = model(**_inputs(model, batch)).logits
    finally:
        pick.remove()
    logs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
    return -(logs[batch.pair_predictor, batch.pair_target] * batch.pair_weight).sum()


def _pick(predictors: torch.Tensor, _: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Lets the output head see only what predicts a learned token."""
    return (arguments[0].flatten(0, 1)[predictors],)


def _hidden(model: PreTrainedModel, batch: TrieBatch) -> torch.Tensor:
    """The last hidden states, ``(rows, tokens, dim)``."""
    states: torch.Tensor = model.base_model(**_inputs(model, batch)).last_hidden_state
    return states


def _inputs(model: PreTrainedModel, batch: TrieBatch) -> dict[str, Any]:
    """What the decoder takes: tokens, positions, and who attends to whom, for each kind of layer that it has."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ()
    full = _additive(model, batch.attends())
    local = full if window is None else _additive(model, batch.attends(window))
    if "sliding_attention" in kinds:
        mask: Any = {"full_attention": full, "sliding_attention": local}
    else:
        mask = full if kinds else local
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": mask,
        "use_cache": False,
    }


def _additive(model: PreTrainedModel, attends: torch.Tensor) -> torch.Tensor:
    """The mask as a summand of attention scores, once for all layers."""
    dtype = _product_dtype(model, attends)
    return torch.zeros(attends.shape, dtype=dtype, device=attends.device).masked_fill_(~attends, float("-inf"))


def _product_dtype(model: PreTrainedModel, beside: torch.Tensor) -> torch.dtype:
    """The type that the model multiplies in, on the device of a tensor."""
    kind = beside.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype


@dataclass(frozen=True, slots=True)
class PartLoss:
    """The loss of some rows, and what it took.

    Attributes:
        total: Sum over the learned tokens; a scalar with a graph.
        computed_tokens: Tokens that went through the layers, padding included.
    """

    total: torch.Tensor
    computed_tokens: int


class Loss:
    """The loss of a model on rows, in the fastest way that was found exact for it.

    Attributes:
        shares: Whether rows are computed as tries.
        notes: What could not be done as asked, a sentence each.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        rows: Sequence[Row],
        *,
        share_tokens: bool = True,
        compiled: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        """Tries the trie and the plain head on a few rows.

        Args:
            model: On its device.
            rows: What will be learned; the trial takes a few of them.
            share_tokens: Compute tokens that rows have in common once.
            compiled: The layers are compiled, so the output head is, too.
            autocast: The type of products, where it is not that of the weights.
        """
        self._model = model
        self._causal: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
        self._pad_id: int = self._causal.config.get_text_config().pad_token_id or 0
        self._share = share_tokens
        self._compiled = compiled
        self._autocast = autocast
        self._costs = CostModel.of(self._causal)
        trial = _Trial(self._causal, rows, self._pad_id)
        reason = trial.reason_against_tries()
        self.shares = reason is None
        self._plain_head = self.shares and trial.head_is_plain()
        self.notes: tuple[str, ...] = (
            () if reason is None else (f"Rows are padded and nothing is shared (tune.share_tokens): {reason}.",)
        )

    def parts(self, rows: Sequence[Row]) -> Iterator[PartLoss]:
        """The loss part by part: each may be backpropagated, and its memory freed, before the next is computed."""
        device = self._causal.device
        if self.shares:
            batch = pack(rows, self._costs, share=self._share).to(device)
            plain, compiled = self._plain_head, self._compiled
            yield self._part(
                lambda: trie_loss(self._causal, batch, plain_head=plain, compiled=compiled), batch.input_ids
            )
            return
        padded = {name: tensor.to(device) for name, tensor in collate(rows, self._pad_id).items()}
        for part in cut_padding(padded, [len(row.input_ids) for row in rows]):
            yield self._part(partial(completion_loss, self._model, part), part["input_ids"])

    def _part(self, compute: Callable[[], torch.Tensor], tokens: torch.Tensor) -> PartLoss:
        kind, dtype = tokens.device.type, self._autocast
        with nullcontext() if dtype is None else torch.autocast(kind, dtype):
            return PartLoss(compute(), tokens.numel())


class _Trial:
    """What a few rows show of an architecture, in evaluation mode and without gradients."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row], pad_id: int) -> None:
        self._model = model
        self._tolerance = _TOLERANCE[model.dtype]
        # The first two rows often share a prompt; the longest and the shortest show what padding does.
        some = [*rows[:2], min(rows, key=_length), max(rows, key=_length)]
        self._rows = [replace(row, input_ids=row.input_ids[:_TRIAL_TOKENS], prompt_tokens=0) for row in some]
        self._padded = {name: tensor.to(model.device) for name, tensor in collate(self._rows, pad_id).items()}

    def reason_against_tries(self) -> str | None:
        """None where hidden states of a trie are those of the padded batch; else why there are none, or others."""
        sequences = [np.asarray(row.input_ids, dtype=np.int64) for row in self._rows]
        ordered = [sequences[place] for place in sorted_order(sequences)]
        trie = build_trie(ordered, [1] * len(ordered), shared_prefixes(ordered))
        child = {key: node for node, key in enumerate(zip(trie.parent.tolist(), trie.tokens.tolist(), strict=True))}
        kind = self._model.config.model_type
        with self._quietly():
            padded = self._states()
            try:
                shared = _hidden(self._model, pad_tries([trie]).to(self._model.device))[0]
            # Whatever an architecture says to a mask that it does not take.
            except (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError) as error:
                return f"'{kind}' does not take a mask of four dimensions ({str(error).splitlines()[0]})"
        worst = 0.0
        for place, sequence in enumerate(sequences):
            nodes, node = [], -1
            for token in sequence.tolist():
                node = child[node, token]
                nodes.append(node)
            worst = max(worst, _relative_difference(shared[nodes], padded[place, : len(nodes)]))
        return None if worst < self._tolerance else f"'{kind}' gives other hidden states (off by {worst:.1g})"

    def head_is_plain(self) -> bool:
        """Whether logits are the head's product with the last hidden states."""
        head = self._model.get_output_embeddings()
        if type(head) is not nn.Linear:
            return False
        inputs = {name: self._padded[name] for name in ("input_ids", "attention_mask")}
        with self._quietly():
            logits = self._model(**inputs, use_cache=False).logits
            return _relative_difference(head(self._states()), logits) < self._tolerance

    def _states(self) -> torch.Tensor:
        inputs = {name: self._padded[name] for name in ("input_ids", "attention_mask")}
        states: torch.Tensor = self._model.base_model(**inputs, use_cache=False).last_hidden_state
        return states

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._model.train(training)


def _length(row: Row) -> int:
    return len(row.input_ids)


def _relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())
