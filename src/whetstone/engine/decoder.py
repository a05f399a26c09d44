"""From a model to what computes its steps: our attention in transformers' forward pass, or a pass of our own.

Notable: whether a model computes the same in this way is tried on a few tokens, not looked up by architecture.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from whetstone.engine.adapters import AdapterBank, Share
from whetstone.engine.flat import ATTENTION, AttentionRule, Piece, States, Step, attending, flat_step
from whetstone.engine.hidden import last_states
from whetstone.engine.lean_decoder import LeanDecoder, adds_products, shaped_like_llama
from whetstone.engine.slab import KeyValueShape, Slab
from whetstone.errors import UserError
from whetstone.models.load import attention_of

__all__ = ["Batched", "Decoder", "batched"]

_TRIED_TOKENS = 12


class Decoder(Protocol):
    """Computes a step."""

    def __call__(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        """Logits of the last token of each piece, ``(pieces, vocabulary)``."""
        ...

    def hidden(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        """What the output head is given for each token, ``(tokens, size)``."""
        ...


class _OwnForward:
    """The model's own forward pass, with our attention."""

    def __init__(self, model: PreTrainedModel, bank: AdapterBank) -> None:
        self.model = model
        self.bank = bank

    def __call__(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        with attending(step.groups), self.bank.sharing(shares, step.input_ids.shape[1]):
            output = self.model(
                input_ids=step.input_ids, position_ids=step.position_ids, use_cache=False, logits_to_keep=step.last
            )
        logits: torch.Tensor = output.logits[0]
        return logits

    def hidden(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        with attending(step.groups), self.bank.sharing(shares, step.input_ids.shape[1]):
            return last_states(self.model, step.input_ids, position_ids=step.position_ids)


class Batched:
    """A model that answers many requests at once, and its adapters.

    Attributes:
        lean: The pass of our own; None where the model's own forward computes all steps.
        shape: What the layers keep for each token.
        vocabulary: How many tokens the model knows.
    """

    def __init__(self, usual: _OwnForward, lean: LeanDecoder | None, shape: KeyValueShape, vocabulary: int) -> None:
        self.lean = lean
        self.shape = shape
        self.vocabulary = vocabulary
        self._usual = usual

    @property
    def digests(self) -> Mapping[str, str]:
        """Identity of the weights of each adapter that is on the model, by name; any thread may look."""
        return self._usual.bank.digests

    def __call__(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        """Logits of the last token of each piece, ``(pieces, vocabulary)``."""
        return self._decoder(shares)(step, shares)

    def hidden(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        """What the output head is given for each token, ``(tokens, size)``."""
        return self._decoder(shares).hidden(step, shares)

    @torch.inference_mode()
    def load(self, name: str, folder: Path) -> None:
        """Puts one more adapter on the model; one that is refused leaves all as it was.

        The lean pass takes it where that is exact, which is tried as at the beginning. Where it is not, steps with
        tokens of this adapter are computed by the model's own forward pass, and no others.

        Raises:
            UserError: It does not fit the model, cannot be read, has a name that is taken, or could only be computed
                with weights that were given up for the layout of this processor.
        """
        self._usual.bank.load(name, folder)
        try:
            self._add_to_lean(name, folder)
        except BaseException:
            self.unload(name)
            raise

    def unload(self, name: str) -> None:
        """Takes an adapter off and gives its memory back; there must be one of this name."""
        if self.lean is not None:
            self.lean.remove(name)
        self._usual.bank.unload(name)

    def _decoder(self, shares: Sequence[Share]) -> Decoder:
        lean = self.lean
        return lean if lean is not None and all(share.adapter in lean.adapters for share in shares) else self._usual

    def _add_to_lean(self, name: str, folder: Path) -> None:
        lean, every = self.lean, slice(None)
        if lean is None:
            return
        if adds_products(self._usual.model, name):
            lean.add(name)
            ids, shares = _tried_ids(self.vocabulary, self.shape.device), [Share(name, every, every)]
            if _same(_tried(lean, self.shape, ids, shares), _tried(self._usual, self.shape, ids, shares)):
                return
            lean.remove(name)
        if lean.is_packed:
            raise UserError(
                f"{folder}: weights that are laid out for this processor take plain LoRA on linear layers only; "
                "open the model with this adapter, or merge it"
            )


@torch.inference_mode()
def batched(model: PreTrainedModel, adapters: Mapping[str, Path]) -> Batched | None:
    """Gives a model our attention, and adapters; None where it does not compute the same then, and is as it was.

    Args:
        model: In evaluation mode, without adapters.
        adapters: Folders by name.

    Raises:
        UserError: An adapter does not fit the model, or cannot be read; or an engine has the model already.
    """
    own = attention_of(model)
    if own == ATTENTION:
        raise UserError("an engine has taken this model over; load it again, or give that engine all adapters")
    if not _turns_alone(model.config):
        return None
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = _tried_ids(vocabulary, model.device)
    expected = model(input_ids=ids[None], use_cache=False).logits[0]
    recorder = _Recorder()
    if _takes_attention(model):
        with attending([recorder]):
            model(input_ids=ids[None, :1], position_ids=ids[None, :1] * 0, use_cache=False)
    shape = recorder.shape(model.device) if _sees_windows(model.config, recorder.rules) else None
    if shape is None or not _same(_tried(_OwnForward(model, AdapterBank(model, {})), shape, ids, ()), expected[-2:]):
        model.set_attn_implementation(own)
        return None
    usual = _OwnForward(model, AdapterBank(model, adapters))
    return Batched(usual, _lean(usual, shape, recorder.rules, ids), shape, vocabulary)


def _turns_alone(config: PreTrainedConfig) -> bool:
    """Whether each token is rotated by its own position alone.

    Some ways to lengthen the context look at the longest sequence of a batch, so an answer would depend on others.
    """
    rules = getattr(config, "rope_parameters", None) or {}
    # One set of rules, or one for each kind of layer.
    kinds = [rules, *(part for part in rules.values() if isinstance(part, dict))]
    return not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


def _sees_windows(config: PreTrainedConfig, rules: Sequence[AttentionRule]) -> bool:
    """Whether the layers that do not attend to everything say so to our attention; some leave that to masks."""
    window = getattr(config, "sliding_window", None)
    default = ["full_attention" if window is None else "sliding_attention"] * len(rules)
    kinds = getattr(config, "layer_types", None) or default
    return all(kind == "full_attention" or rule.window is not None for kind, rule in zip(kinds, rules, strict=False))


def _lean(
    usual: _OwnForward, shape: KeyValueShape, rules: Sequence[AttentionRule], ids: torch.Tensor
) -> LeanDecoder | None:
    model, adapters = usual.model, list(usual.bank.digests)
    if not shaped_like_llama(model) or not all(adds_products(model, name) for name in adapters):
        return None
    every = slice(None)
    tries: list[tuple[Share, ...]] = [(), *((Share(name, every, every),) for name in adapters)]
    expected = [_tried(usual, shape, ids, shares) for shares in tries]
    lean = LeanDecoder(model, adapters, rules)
    if not all(_same(_tried(lean, shape, ids, tried), logits) for tried, logits in zip(tries, expected, strict=True)):
        return None
    lean.pack()
    return lean


def _takes_attention(model: PreTrainedModel) -> bool:
    """Sets our attention, where the architecture lets itself be given one; transformers only logs where it does not."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model.set_attn_implementation(ATTENTION)
    finally:
        logging.set_verbosity(verbosity)
    return attention_of(model) == ATTENTION


def _tried_ids(vocabulary: int, device: torch.device) -> torch.Tensor:
    return (torch.arange(_TRIED_TOKENS, device=device) + 2) % vocabulary


def _tried(decoder: Decoder, shape: KeyValueShape, ids: torch.Tensor, shares: Sequence[Share]) -> torch.Tensor:
    """Logits of the last two tokens, ``(2, vocabulary)``: one ends a prompt and one follows it."""
    slab = Slab(shape, rows=2, tokens=len(ids))
    tokens = ids.tolist()
    logits = []
    for start, end in ((0, len(tokens) - 1), (len(tokens) - 1, len(tokens))):
        step = flat_step([Piece(slab, row=1, start=start, token_ids=tokens[start:end])], ids.device)
        logits.append(decoder(step, shares))
    return torch.cat(logits)


def _same(got: torch.Tensor, expected: torch.Tensor) -> bool:
    # Rounding differs, and with it the last of the 8 bits of bfloat16 in every layer.
    tolerance = 0.1 if expected.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1.0))


class _Recorder:
    """Takes note of how the attention layers of a model attend, and what they keep."""

    tokens = 1

    def __init__(self) -> None:
        self._seen: dict[int, tuple[States, AttentionRule]] = {}

    def attend(self, layer: int, states: States, rule: AttentionRule) -> torch.Tensor:
        self._seen[layer] = states, rule
        queries, _, values = states
        return queries.new_zeros(*queries.shape[:2], values.shape[-1])

    @property
    def rules(self) -> list[AttentionRule]:
        """One for each layer."""
        return [rule for _, (_, rule) in sorted(self._seen.items())]

    def shape(self, device: torch.device) -> KeyValueShape | None:
        """What every layer keeps; None where there is no such thing, because layers differ."""
        kept = {(keys.shape[1:], values.shape[1:], keys.dtype) for (_, keys, values), _ in self._seen.values()}
        if sorted(self._seen) != list(range(len(self._seen))) or len(kept) != 1:
            return None
        of_keys, of_values, dtype = kept.pop()
        return KeyValueShape(len(self._seen), of_keys[0], of_keys[1], dtype, device) if of_keys == of_values else None
