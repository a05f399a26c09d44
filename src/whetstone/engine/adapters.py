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
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

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
        for layer in model.modules():
            if isinstance(layer, BaseTunerLayer | ModulesToSaveWrapper):
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
            layer.forward = MethodType(lambda this, x, *rest, **named: self._apart(this, original, x), layer)

    def _places(self, share: Share, x: torch.Tensor) -> torch.Tensor | slice:
        return share.tokens if x.shape[1] == self._row_tokens else share.last

    def _summed(self, layer: Any, x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        """The base's product for all tokens, and each adapter's on its own."""
        output: torch.Tensor = layer.base_layer(x)
        for share in self._shares:
            if share.adapter not in layer.lora_A:
                continue
            places = self._places(share, x)
            down, up = layer.lora_A[share.adapter], layer.lora_B[share.adapter]
            added = up(down(x[0, places].to(down.weight.dtype))) * layer.scaling[share.adapter]
            output[0, places] = (output[0, places] + added).to(output.dtype)
        return output

    def _apart(self, layer: Any, forward: Any, x: torch.Tensor) -> torch.Tensor:
        """Each adapter's tokens alone, with it in force."""
        layer.enable_adapters(False)
        output: torch.Tensor = forward(x)
        layer.enable_adapters(True)
        for share in self._shares:
            if isinstance(layer, ModulesToSaveWrapper) and share.adapter not in layer.modules_to_save:
                continue
            places = self._places(share, x)
            layer.set_adapter([share.adapter])
            output[0, places] = forward(x[:, places])[0]
        return output


def _is_sum(layer: Any) -> bool:
    """Whether all adapters of a layer only add a product to the base's."""
    return not layer.lora_variant and not isinstance(layer.get_base_layer(), nn.Embedding | nn.Conv1d | nn.Conv2d)
