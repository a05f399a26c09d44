"""Several LoRA adapters and the base in one batch, over one copy of the base's weights.

In a flat row each token belongs to one request, and so to one adapter or none. A layer computes the base's product for
all tokens at once and adds, for each adapter, its own product on its own tokens (the idea of Chen et al. 2023, Punica,
arXiv:2310.18547, without a kernel of its own).

Adapters come and go between two steps. One that is taken off leaves the model as if it had never been there: layers
that no adapter is on any more are again the very layers that the model was opened with.

Notable: what is more than a sum of products (DoRA, adapted embeddings, modules saved whole) computes each adapter's
tokens apart with PEFT's own forward pass, so every adapter that PEFT can put on a model is exact here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from whetstone.errors import UserError
from whetstone.models.adapter import load_adapter
from whetstone.models.fingerprint import digest_weights

__all__ = ["AdapterBank", "Share", "adapters_of"]

_ADAPTED = (BaseTunerLayer, AuxiliaryTrainingWrapper)
_BASE_CHANGING_STARTS = ("pissa", "corda", "olora", "loftq")
"""How LoRA may begin such that PEFT takes a part of the base's weights out whenever it puts the adapter on."""


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
        digests: Identity of each adapter's weights, by name; never changed in place, so any thread may look.
    """

    def __init__(self, model: PreTrainedModel, folders: Mapping[str, Path]) -> None:
        """Puts all adapters on the model, in place.

        Raises:
            UserError: An adapter does not fit the model, or cannot be read.
        """
        self.digests: Mapping[str, str] = {}
        self._model = model
        self._peft: PeftModel | None = None
        self._taken_over: list[nn.Module] = []
        self._shares: Sequence[Share] = ()
        self._row_tokens = 0
        for name, folder in folders.items():
            self.load(name, folder)

    def load(self, name: str, folder: Path) -> None:
        """Puts one more adapter on the model; one that is refused leaves the model as it was.

        Raises:
            UserError: It does not fit the model or the adapters that are on it, or cannot be read, or its name is
                taken.
        """
        if name in self.digests:
            raise UserError(f"{folder}: an adapter '{name}' is loaded already; unload that one first")
        digest = digest_weights(folder)
        _check(_config(folder), folder)
        # PEFT copies whole layers for some adapters, and must not copy what was put on them here.
        self._give_back()
        try:
            self._peft = load_adapter(self._model if self._peft is None else self._peft, folder, name=name)
            _check_nesting(self._model, folder)
        except BaseException:
            self._take_off(name)
            raise
        finally:
            self._take_over_all()
        self.digests = {**self.digests, name: digest}

    def unload(self, name: str) -> None:
        """Takes an adapter off and gives its memory back; there must be one of this name."""
        self.digests = {other: digest for other, digest in self.digests.items() if other != name}
        self._give_back()
        try:
            self._take_off(name)
        finally:
            self._take_over_all()

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

    def _take_off(self, name: str) -> None:
        """Removes all of an adapter, however much of it is there.

        PEFT's own way out wants an adapter that was put on whole, and leaves empty layers behind.
        """
        for layer in list(self._model.modules()):
            if isinstance(layer, BaseTunerLayer):
                # PEFT warns where an adapter in force is deleted; here each is put in force when it is needed.
                layer.set_adapter([])
                layer.delete_adapter(name)
            elif isinstance(layer, AuxiliaryTrainingWrapper):
                layer.delete_adapter(name, None)
        for parent in list(self._model.modules()):
            for child_name, child in list(parent.named_children()):
                if child is not _bare(child):
                    setattr(parent, child_name, _bare(child))
        if self._peft is not None:
            tuner = self._peft.base_model
            tuner.peft_config.pop(name, None)
            if tuner.peft_config:
                tuner.active_adapter = self._peft.active_adapter = next(iter(tuner.peft_config))
            else:
                self._peft = None
        if self._peft is None:
            # Without this, PEFT takes the next adapter for a second one.
            vars(self._model).pop("peft_config", None)

    def _give_back(self) -> None:
        for layer in self._taken_over:
            del layer.forward
        self._taken_over = []

    def _take_over_all(self) -> None:
        adapted = [layer for layer in self._model.modules() if isinstance(layer, BaseTunerLayer | ModulesToSaveWrapper)]
        inner = {id(part) for layer in adapted for part in _wrapped(layer)[1:]}
        for layer in adapted:
            if id(layer) not in inner:
                self._take_over(layer)
                self._taken_over.append(layer)

    def _take_over(self, layer: nn.Module) -> None:
        original, forward = layer.forward, self._summed if _multiplies(layer) else self._apart
        layer.forward = MethodType(lambda this, *arguments, **named: forward(this, original, arguments), layer)

    def _places(self, share: Share, tokens: int) -> torch.Tensor | slice:
        return share.tokens if tokens == self._row_tokens else share.last

    def _summed(self, layer: Any, forward: Any, arguments: Sequence[torch.Tensor]) -> torch.Tensor:
        """The base's product for all tokens, and each adapter's on its own."""
        x = arguments[0]
        output: torch.Tensor = layer.base_layer(x)
        # Some layers are given their tokens without the dimension of the batch, which is of one row.
        rows, sums = x.reshape(-1, x.shape[-1]), output.view(-1, output.shape[-1])
        for share in self._shares:
            if share.adapter not in layer.lora_A:
                continue
            places = self._places(share, len(rows))
            if share.adapter in layer.lora_variant:
                layer.set_adapter([share.adapter])
                sums[places] = forward(rows[places])
                continue
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
            if not any(share.adapter in adapters_of(part) for part in parts):
                continue
            places = self._places(share, first.shape[len(lead)])
            for part in parts:
                part.set_adapter([share.adapter])
            own = forward(*(value[:, places] if lead else value[places] for value in arguments))
            for of_all, of_own in zip(_each(outputs), _each(own), strict=True):
                of_all[(*lead, places)] = of_own[lead]
        return outputs


def adapters_of(layer: Any) -> set[str]:
    """The names of the adapters that are on a layer of PEFT."""
    return {name for kept in layer.adapter_layer_names for name in attrgetter(kept)(layer)}


def _bare(layer: Any) -> Any:
    """What is left of a layer once the wraps of PEFT that hold no adapter are taken away."""
    while isinstance(layer, _ADAPTED) and not adapters_of(layer):
        layer = layer.base_layer if isinstance(layer, BaseTunerLayer) else layer.original_module
    return layer


def _wrapped(layer: Any) -> list[Any]:
    """A layer, and those adapted layers that it is wrapped around: experts have one for each of their parameters."""
    if isinstance(layer, ParamWrapper):
        return [layer, *_wrapped(layer.base_layer)]
    return [layer] if isinstance(layer, BaseTunerLayer | ModulesToSaveWrapper) else []


def _each(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Routers give several things for each token."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _config(folder: Path) -> PeftConfig:
    """What an adapter says of itself.

    Raises:
        UserError: It says nothing that can be read.
    """
    mend = "give a folder that PEFT saved"
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder}: holds no adapter_config.json; {mend}")
    try:
        return PeftConfig.from_pretrained(folder)
    except (OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: its adapter_config.json cannot be read ({reason}); {mend}") from None


def _check(config: PeftConfig, folder: Path) -> None:
    """Refuses adapters that change the base for everybody, or that are no layers.

    Raises:
        UserError: It is such an adapter.
    """
    mend = "give a LoRA adapter trained with bias='none', or merge it into the model"
    if config.is_prompt_learning:
        raise UserError(f"{folder}: an adapter of the kind {config.peft_type} puts tokens before the prompt; {mend}")
    if not isinstance(config, LoraConfig):
        return
    if config.bias != "none":
        raise UserError(f"{folder}: trained with bias='{config.bias}', it would change what the base answers; {mend}")
    start = str(config.init_lora_weights).lower()
    if start.startswith(_BASE_CHANGING_STARTS) or config.kasa_config or config.layer_replication:
        raise UserError(
            f"{folder}: put on the model, it would change the weights that the base and other adapters answer with; "
            "save it as a plain LoRA adapter, or merge it into the model"
        )
    if config.alora_invocation_tokens:
        raise UserError(f"{folder}: it is in force after some tokens of the prompt only, which is not supported")


def _check_nesting(model: PreTrainedModel, folder: Path) -> None:
    """Refuses that a module is saved whole by one adapter and adapted by another: PEFT then mixes the two up.

    Raises:
        UserError: There is such a module.
    """
    for path, layer in model.named_modules():
        if isinstance(layer, ModulesToSaveWrapper):
            inside = [part for part in layer.modules() if isinstance(part, BaseTunerLayer)]
            if inside:
                raise UserError(
                    f"{folder}: one adapter replaces {path} and another adapts it, which cannot be held together; "
                    "open them apart, or merge one of them"
                )


def _multiplies(layer: Any) -> bool:
    """Whether the base of a layer is a product that adapters add to."""
    is_lora = isinstance(layer, LoraLayer) and not isinstance(layer, ParamWrapper)
    return is_lora and isinstance(layer.get_base_layer(), nn.Linear | Conv1D)
