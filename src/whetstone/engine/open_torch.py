"""The weights that torch runs: which type they have, how they are rounded, and who shares them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.models.device import choose_device, limit_threads
from whetstone.models.load import load_config, load_weights
from whetstone.models.quantise import nf4, round_to_int8
from whetstone.models.ref import Precision, RandomWeights, RunModel, Weights
from whetstone.models.resolve import Resolved
from whetstone.section import stable_hash

__all__ = ["TorchWeights", "asked_with", "load_torch", "torch_weights"]

_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class TorchWeights:
    """Weights in memory; models for which all of it is the same share them.

    Attributes:
        folder: Where they are read from.
        dtype: Of those that are not quantised.
        quantisation: Of the linear layers.
        products: The type that NF4 weights are multiplied in.
        double: The constants of NF4 are quantised, too.
        device: Where they go.
        random: They are not read at all.
        asked_with: Identity of the template and its tokenizer.
    """

    folder: Path
    dtype: str
    quantisation: Literal["nf4", "int8"] | None
    products: str
    double: bool
    device: str
    random: bool
    asked_with: str

    def described(self) -> str | None:
        """The quantisation in words."""
        if self.quantisation != "nf4":
            return self.quantisation
        return "nf4" if self.double else "nf4, its constants in float32"


def torch_weights(
    model: Weights | RunModel | RandomWeights, resolved: Resolved, template: Template, *, device: str, dtype: str | None
) -> TorchWeights:
    """Decides how a model is held.

    What its name says holds first. An adapter that was trained on NF4 lies on NF4 in the very numbers that training
    had. Then comes ``dtype``, then what the model's run is judged at, then the type that the weights are stored in.

    Raises:
        UserError: There is no such device or type.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise UserError(f"'{dtype}' is no type of weights; give {', '.join(_DTYPES)}")
    precision, trained = model.precision, resolved.trained_nf4
    if precision is None and trained is not None and resolved.adapter is not None:
        precision = "nf4"
    as_trained = trained if precision == "nf4" else None
    held = precision if precision in _DTYPES else dtype or resolved.dtype or _stored_dtype(resolved.path)
    return TorchWeights(
        folder=resolved.path,
        dtype=held if as_trained is None else as_trained.weights,
        quantisation=_quantisation(precision),
        products=held if as_trained is None else as_trained.products,
        double=True if as_trained is None else as_trained.double,
        device=str(choose_device(device)),
        random=isinstance(model, RandomWeights),
        asked_with=asked_with(template),
    )


def asked_with(template: Template) -> str:
    """Identity of a template and its tokenizer, which models that share an engine have in common."""
    return stable_hash([template.hash, template.end_of_turn_id, template.vocabulary()])


def load_torch(weights: TorchWeights, asked: str) -> PreTrainedModel:
    """Reads weights, in evaluation mode, on their device.

    Args:
        weights: Which.
        asked: The name to answer with.

    Raises:
        UserError: They cannot be read, or not be quantised so.
    """
    device = torch.device(weights.device)
    if device.type == "cpu":
        limit_threads()
    if weights.random:
        return _random_model(weights, device)
    if weights.quantisation == "int8":
        # Rounded before they go to the device, so that the whole weights need no memory there.
        model = load_weights(weights.folder, dtype=weights.dtype, device=torch.device("cpu"))
        if not round_to_int8(model):
            raise UserError(f"{asked}: a {model.config.model_type} has no linear layers to round; leave out @int8")
        return model.to(device)
    quantisation = None
    if weights.quantisation == "nf4":
        products: torch.dtype = getattr(torch, weights.products)
        quantisation = nf4(device, compute_dtype=products, double=weights.double, asked=asked)
    return load_weights(weights.folder, dtype=weights.dtype, device=device, quantisation=quantisation)


def _quantisation(precision: Precision | None) -> Literal["nf4", "int8"] | None:
    return precision if precision == "nf4" or precision == "int8" else None


def _stored_dtype(folder: Path) -> str:
    """What the configuration says; float32 where it says nothing, as transformers takes it."""
    return str(load_config(folder).dtype or "float32").removeprefix("torch.")


def _random_model(weights: TorchWeights, device: torch.device) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dtype: torch.dtype = getattr(torch, weights.dtype)
        return AutoModelForCausalLM.from_config(load_config(weights.folder), dtype=dtype).to(device).eval()
