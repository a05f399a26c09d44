"""The forward pass of decoders shaped like Llama, in as few operations as their mathematics needs.

Decoding one token is a long row of small products, and on a CPU half of its time goes into what stands between them.
Here projections of one input are one product, a norm is one operation, and rotation is four; transformers' own forward
takes about twice as many steps for the same numbers. Whether they *are* the same is tried before the pass is used.

Notable: joined projections take no memory twice, because the model's own weights become views of the joined ones. On
processors that multiply bfloat16, weights are laid out once as the multiplication wants them; without this the layout
is made anew for every token, which takes longer than the product.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from whetstone.engine.adapters import Share, adapters_of
from whetstone.engine.flat import AttentionRule, States, Step, attend

__all__ = ["LeanDecoder", "Product", "adds_products", "shaped_like_llama"]

_SHAPED_LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3")
"""Model types of transformers whose layers are: norm, q/k/v, rotation, attention, o; norm, gate and up, down."""

_PACKED_ROWS = 32
"""For how many tokens at once the packed layout is made; it serves others, too."""


def shaped_like_llama(model: PreTrainedModel) -> bool:
    """Whether :class:`LeanDecoder` knows all layers of a model."""
    bases = [layer.get_base_layer() if isinstance(layer, LoraLayer) else layer for layer in _projections(model)]
    return model.config.model_type in _SHAPED_LIKE_LLAMA and all(type(base) is nn.Linear for base in bases)


def adds_products(model: PreTrainedModel, adapter: str) -> bool:
    """Whether an adapter that is on a model only adds plain products, of two matrices each, to projections.

    That cannot be left to a trial: an adapter that was trained little changes logits by less than rounding does.
    """
    projections = {id(layer) for layer in _projections(model)}
    adapted = [
        layer
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper) and adapter in adapters_of(layer)
    ]
    return all(
        id(layer) in projections
        and isinstance(layer, LoraLayer)
        and adapter not in layer.lora_variant
        and not layer.lora_bias[adapter]
        for layer in adapted
    )


def _projections(model: PreTrainedModel) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if name.endswith(("_proj", "lm_head"))]


class Product:
    """Projections of one input as one product, with what adapters add to it."""

    def __init__(self, projections: Sequence[nn.Module]) -> None:
        """Joins the weights; those of the projections become views of them.

        Args:
            projections: Linear layers, with LoRA or without, that take the same input.
        """
        bases: list[Any] = [layer.get_base_layer() if isinstance(layer, LoraLayer) else layer for layer in projections]
        self._sizes: list[int] = [base.out_features for base in bases]
        weight = bases[0].weight.data if len(bases) == 1 else torch.cat([base.weight.data for base in bases])
        bias = None if bases[0].bias is None else torch.cat([base.bias.data for base in bases])
        self._weight, self._bias = weight.t(), bias
        self._packed: torch.Tensor | None = None
        self._bases = bases
        if len(bases) > 1:
            for base, part in zip(bases, weight.split(self._sizes), strict=True):
                base.weight.data = part
        self._added: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def is_packed(self) -> bool:
        """Whether the weights are laid out for this processor."""
        return self._packed is not None

    def add(self, adapter: str, projections: Sequence[nn.Module]) -> None:
        """Takes an adapter on.

        Args:
            adapter: Its name.
            projections: The same as at the beginning, as they are with it.
        """
        joined = _joined(projections, self._sizes, adapter)
        if joined is not None:
            self._added[adapter] = joined

    def remove(self, adapter: str) -> None:
        """Forgets an adapter."""
        self._added.pop(adapter, None)

    def pack(self, *, keep: bool) -> None:
        """Lays bfloat16 weights out as this processor multiplies them.

        Args:
            keep: Whether the weights as they were are needed elsewhere; they are given up if not.
        """
        weight = self._weight.t()
        if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not _multiplies_bfloat16():
            return
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PACKED_ROWS)
        if not keep:
            # Of the same shape, for whoever counts parameters, and of no use to whoever computes with it.
            nothing = weight.new_full((1,), float("nan"))
            self._weight = nothing
            for base, end in zip(self._bases, itertools.accumulate(self._sizes), strict=True):
                part = slice(end - base.out_features, end)
                base.weight.data = nothing.expand(base.weight.shape)
                # The model's own forward pass is still needed, to try adapters that come later.
                base.forward = lambda x, part=part: self._of_base(x, None)[..., part]

    def __call__(
        self, x: torch.Tensor, shares: Sequence[Share], *, onto: torch.Tensor | None = None, last: bool = False
    ) -> torch.Tensor:
        """The product, ``(tokens, out)``.

        Args:
            x: ``(tokens, in)``.
            shares: Which tokens belong to which adapter.
            onto: What it is added to, ``(tokens, out)``.
            last: Whether the tokens are the last ones of all requests.
        """
        output = self._of_base(x, onto)
        for share in shares:
            added = self._added.get(share.adapter)
            if added is not None:
                down, up = added
                places = share.last if last else share.tokens
                delta = functional.linear(functional.linear(x[places].to(down.dtype), down), up)
                output[places] = (output[places] + delta).to(output.dtype)
        return output

    def _of_base(self, x: torch.Tensor, onto: torch.Tensor | None) -> torch.Tensor:
        if self._packed is not None:
            output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        elif onto is not None and self._bias is None:
            return torch.addmm(onto, x, self._weight)
        elif self._bias is None:
            output = torch.mm(x, self._weight)
        else:
            output = torch.addmm(self._bias, x, self._weight)
        return output if onto is None else onto + output


def _multiplies_bfloat16() -> bool:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _joined(
    projections: Sequence[nn.Module], sizes: Sequence[int], adapter: str
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The two factors of what an adapter adds to joined projections, the second one scaled; None if it adds nothing."""
    adapted = [
        (layer, sum(sizes[:index]))
        for index, layer in enumerate(projections)
        if isinstance(layer, LoraLayer) and adapter in layer.lora_A
    ]
    if not adapted:
        return None
    down = torch.cat([layer.lora_A[adapter].weight.data for layer, _ in adapted])
    up = down.new_zeros(sum(sizes), len(down))
    rank = 0
    for layer, start in adapted:
        factor = layer.lora_B[adapter].weight.data * layer.scaling[adapter]
        up[start : start + factor.shape[0], rank : rank + factor.shape[1]] = factor
        rank += factor.shape[1]
    return down, up


class _Norm:
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, norm: Any) -> None:
        self._weight = norm.weight.data
        self._epsilon = float(norm.variance_epsilon)
        self._added = self._weight.new_tensor(self._epsilon)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype in (torch.bfloat16, torch.float16):
            return functional.rms_norm(x, self._weight.shape, self._weight, self._epsilon)
        # rms_norm is put together from twice as many operations.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * torch.addcmul(self._added, length, length, value=1 / x.shape[-1]).rsqrt_()).mul_(self._weight)


class _Layer:
    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.first_norm, self.second_norm = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._attention, self._mlp = attention, mlp
        self.qkv, self.o, self.gate_up, self.down = (Product(projections) for projections in self.projections())
        self.activation = mlp.act_fn
        self.head_dim = attention.head_dim
        self.queries = self._heads(attention.q_proj)
        self.keys = self._heads(attention.k_proj)
        # Qwen 3 normalises queries and keys, each head by itself.
        normalised = attention.config.model_type == "qwen3"
        self.head_norms = (_Norm(attention.q_norm), _Norm(attention.k_norm)) if normalised else None

    def _heads(self, projection: Any) -> int:
        return int(projection.out_features // self.head_dim)

    def states(self, y: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> States:
        """Rotated queries and keys, and values, from what the joined projection gives, ``(tokens, heads x dim)``."""
        heads = y.view(len(y), -1, self.head_dim)
        turning = heads[:, : self.queries + self.keys]
        if self.head_norms is not None:
            of_queries, of_keys = self.head_norms
            turning = torch.cat([of_queries(turning[:, : self.queries]), of_keys(turning[:, self.queries :])], dim=1)
        half = self.head_dim // 2
        turned = torch.cat([turning[..., half:], turning[..., :half]], dim=-1)
        rotated = torch.addcmul(turning * cos, turned, sin)
        return rotated[:, : self.queries], rotated[:, self.queries :], heads[:, self.queries + self.keys :]

    def products(self) -> list[Product]:
        return [self.qkv, self.o, self.gate_up, self.down]

    def projections(self) -> list[list[nn.Module]]:
        """What each product joins, as it is now: an adapter that comes later wraps it."""
        attention, mlp = self._attention, self._mlp
        of_input = [attention.q_proj, attention.k_proj, attention.v_proj]
        return [of_input, [attention.o_proj], [mlp.gate_proj, mlp.up_proj], [mlp.down_proj]]


class LeanDecoder:
    """Computes the logits of a step.

    Attributes:
        adapters: The names of those that it knows.
    """

    def __init__(self, model: PreTrainedModel, adapters: Sequence[str], rules: Sequence[AttentionRule]) -> None:
        """Joins the weights of the model's projections.

        Args:
            model: One that :func:`shaped_like_llama` says yes to.
            adapters: The names of those that are on it, for each of which :func:`adds_products` says yes.
            rules: How each of its layers attends.
        """
        self._model: Any = model
        body: Any = model.model
        self._embedding, self._rotary, self._norm = body.embed_tokens, body.rotary_emb, _Norm(body.norm)
        self._layers = [_Layer(layer) for layer in body.layers]
        self._head = Product([model.lm_head])
        self._tied = model.lm_head.weight is body.embed_tokens.weight
        self._rules = rules
        self.adapters: set[str] = set()
        for adapter in adapters:
            self.add(adapter)

    def __call__(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        """Logits of the last token of each piece, ``(pieces, vocabulary)``."""
        x = self._body(step, shares)
        return self._head(self._norm(x[step.last]), shares, last=True)

    def hidden(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        """What the output head would be given for each token, ``(tokens, size)``."""
        return self._norm(self._body(step, shares))

    def add(self, adapter: str) -> None:
        """Takes on an adapter that was put on the model."""
        for layer in self._layers:
            for product, projections in zip(layer.products(), layer.projections(), strict=True):
                product.add(adapter, projections)
        self._head.add(adapter, [self._model.lm_head])
        self.adapters.add(adapter)

    def remove(self, adapter: str) -> None:
        """Forgets an adapter, if it knows it."""
        self.adapters.discard(adapter)
        for layer in self._layers:
            for product in layer.products():
                product.remove(adapter)
        self._head.remove(adapter)

    @property
    def is_packed(self) -> bool:
        """Whether the model has no weights of its own any more."""
        return self._layers[0].qkv.is_packed

    def pack(self) -> None:
        """Lays weights out for the processor, where it has a layout of its own.

        The model itself computes by the products of this pass then, slowly.
        """
        for layer in self._layers:
            for product in layer.products():
                product.pack(keep=False)
        self._head.pack(keep=self._tied)

    def _body(self, step: Step, shares: Sequence[Share]) -> torch.Tensor:
        """What the last layer gives for each token, before the last norm."""
        x: torch.Tensor = self._embedding(step.input_ids[0])
        cos, sin = self._rotary(x, step.position_ids)
        half = cos.shape[-1] // 2
        # (-b, a) for (a, b): the sign of the turned half goes into the sine.
        cos, sin = cos[0, :, None], torch.cat([-sin[0, :, None, :half], sin[0, :, None, half:]], dim=-1)
        for index, (layer, rule) in enumerate(zip(self._layers, self._rules, strict=True)):
            states = layer.states(layer.qkv(layer.first_norm(x), shares), cos, sin)
            seen = attend(step.groups, index, states, rule)
            x = layer.o(seen.reshape(len(x), -1), shares, onto=x)
            gate, up = layer.gate_up(layer.second_norm(x), shares).chunk(2, dim=-1)
            x = layer.down(layer.activation(gate) * up, shares, onto=x)
        return x
