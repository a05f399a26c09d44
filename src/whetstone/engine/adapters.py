"""Several LoRA adapters and the base in one batch, over one copy of the base's weights.

In a flat row each token belongs to one request, and so to one adapter or none. A layer computes the base's product for
all tokens at once and adds, for each adapter, its own product on its own tokens (the idea of Chen et al. 2023, Punica,
arXiv:2310.18547, without a kernel of its own).

Notable: layers that are more than a sum of products (DoRA, adapted embeddings, modules saved whole) compute each
adapter's tokens apart with PEFT's own forward pass, so every adapter that PEFT can put on a model is exact here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from whetstone.errors import UserError
from whetstone.models.adapter import load_adapter
from whetstone.models.fingerprint import digest_weights

__all__ = ["AdapterBank", "Share"]


@dataclass(frozen=True, slots=True)
class Share:
    """Which tokens of a flat row belong to an adapter.

    Attributes:
        adapter: Its name.
        tokens: ``(n,)``: their places; a slice where they are all.
        last: ``(m,)``: their places among the last tokens of all requests, which is what the output head sees.
    """

    adapter: str
    tokens: torch.Tensor | slice
    last: torch.Tensor | slice


class AdapterBank:
    """The adapters that are put on a model.

    Attributes:
        digests: Identity of each adapter's weights, by name.
    """

    def __init__(self, model: PreTrainedModel, folders: Mapping[str, Path]) -> None:
        """Puts all adapters on the model, in place.

        Raises:
            UserError: An adapter does not fit the model, or cannot be read.
        """
        self.digests = {name: digest_weights(folder) for name, folder in folders.items()}
        self._shares: Sequence[Share] = ()
        self._row_tokens = 0
        wrapped: PreTrainedModel | PeftModel = model
        for name, folder in folders.items():
            wrapped = load_adapter(wrapped, folder, name=name)
            _check(wrapped.peft_config[name], folder)
        adapted = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer | ModulesToSaveWrapper)]
        inner = {id(part) for layer in adapted for part in _wrapped(layer)[1:]}
        for layer in adapted:
            if id(layer) not in inner:
                self._take_over(layer)

    @contextmanager
    def sharing(self, shares: Sequence[Share], row_tokens: int) -> Iterator[None]:
        """Says whose tokens the forward pass inside this block computes.

        Args:
            shares: Of the adapters that have any; other tokens are the base's.
            row_tokens: Length of the flat row.
        """
        self._shares, self._row_tokens = shares, row_tokens
        try:
            yield
        finally:
            self._shares = ()

    def _take_over(self, layer: nn.Module) -> None:
        if isinstance(layer, LoraLayer) and isinstance(layer, nn.Module) and _is_sum(layer):
            layer.forward = MethodType(self._summed, layer)
        else:
            original = layer.forward
            layer.forward = MethodType(lambda this, *arguments, **named: self._apart(this, original, arguments), layer)

    def _places(self, share: Share, tokens: int) -> torch.Tensor | slice:
        return share.tokens if tokens == self._row_tokens else share.last

    def _summed(self, layer: Any, x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        """The base's product for all tokens, and each adapter's on its own."""
        output: torch.Tensor = layer.base_layer(x)
        # Some layers are given their tokens without the dimension of the batch, which is of one row.
        rows, sums = x.reshape(-1, x.shape[-1]), output.view(-1, output.shape[-1])
        for share in self._shares:
            if share.adapter not in layer.lora_A:
                continue
            places = self._places(share, len(rows))
            down, up = layer.lora_A[share.adapter], layer.lora_B[share.adapter]
            added = up(down(rows[places].to(down.weight.dtype))) * layer.scaling[share.adapter]
            sums[places] = (sums[places] + added).to(sums.dtype)
        return output

    def _apart(self, layer: Any, forward: Any, arguments: Sequence[torch.Tensor]) -> Any:
        """Each adapter's tokens alone, with it in force."""
        parts = _wrapped(layer)
        for part in parts:
            part.enable_adapters(False)
        outputs = forward(*arguments)
        for part in parts:
            part.enable_adapters(True)
        first = arguments[0]
        # Embeddings are given integers, (1, tokens); other layers (1, tokens, size) or (tokens, size).
        lead = (0,) if not first.is_floating_point() or first.dim() > 2 else ()
        for share in self._shares:
            if isinstance(layer, ModulesToSaveWrapper) and share.adapter not in layer.modules_to_save:
                continue
            places = self._places(share, first.shape[len(lead)])
            for part in parts:
                part.set_adapter([share.adapter])
            own = forward(*(value[:, places] if lead else value[places] for value in arguments))
            for of_all, of_own in zip(_each(outputs), _each(own), strict=True):
                of_all[(*lead, places)] = of_own[lead]
        return outputs


def _wrapped(layer: Any) -> list[Any]:
    """A layer, and those adapted layers that it is wrapped around: experts have one for each of their parameters."""
    if isinstance(layer, ParamWrapper):
        return [layer, *_wrapped(layer.base_layer)]
    return [layer] if isinstance(layer, BaseTunerLayer | ModulesToSaveWrapper) else []


def _each(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Routers give several things for each token."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _check(config: PeftConfig, folder: Path) -> None:
    """Refuses adapters that change the base for everybody, or that are no layers.

    Raises:
        UserError: It is such an adapter.
    """
    mend = "give a LoRA adapter trained with bias='none', or merge it into the model"
    if config.is_prompt_learning:
        raise UserError(f"{folder}: an adapter of the kind {config.peft_type} puts tokens before the prompt; {mend}")
    if isinstance(config, LoraConfig) and config.bias != "none":
        raise UserError(f"{folder}: trained with bias='{config.bias}', it would change what the base answers; {mend}")


def _is_sum(layer: Any) -> bool:
    """Whether all adapters of a layer only add a product to the base's."""
    is_product = isinstance(layer.get_base_layer(), nn.Linear | Conv1D) and not isinstance(layer, ParamWrapper)
    return is_product and not layer.lora_variant
