"""What a training really uses on the device that it has, and a sentence for every wish that could not be met.

Notable: nothing is replaced in silence. :func:`settle` is the one place where a wish meets the hardware, and each time
it takes something else it writes a note, which goes into ``run.json`` and the report.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from whetstone.experiment import Experiment
from whetstone.models.load import attention_of, load_config, load_weights
from whetstone.models.quantise import nf4, require_bitsandbytes
from whetstone.tune_section import Tune

__all__ = ["Precision", "Settings", "as_loaded", "load_settled", "settle", "weights_dtype"]

Precision = Literal["float32", "bfloat16", "float16"]

_TRANSFORMERS_OPTIMISERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
_UNPAGED = {"paged_adamw_32bit": "adamw", "paged_adamw_8bit": "adamw_8bit"}
_ADAPTER_KEYS = ("rank", "alpha", "dropout", "targets", "dora", "rslora")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is used, whatever was asked.

    Attributes:
        precision: Of products. Weights of another type are cast by autocast; float16 needs a gradient scaler.
        weights_dtype: Weights are loaded in it.
        attention: The implementation, as transformers calls it.
        optimiser: As transformers' ``TrainingArguments.optim`` calls it.
        compile: Compile each layer.
        activation_checkpointing: Compute activations twice.
        quantised: The base is NF4.
        double_quantisation: So are the constants of its quantisation.
        notes: A sentence for everything that was asked and could not be applied, with what is used instead.
    """

    precision: Precision
    weights_dtype: torch.dtype
    attention: str
    optimiser: str
    compile: bool
    activation_checkpointing: bool
    quantised: bool
    double_quantisation: bool
    notes: tuple[str, ...]

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type of products."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]

    @property
    def autocast(self) -> torch.dtype | None:
        """The type of products, where it is not that of the weights."""
        return None if self.compute_dtype == self.weights_dtype else self.compute_dtype

    def quantisation(self, device: torch.device) -> BitsAndBytesConfig | None:
        """What the base is loaded with.

        Raises:
            whetstone.errors.UserError: The base is to be NF4, and bitsandbytes is missing or the device is MPS.
        """
        if not self.quantised:
            return None
        return nf4(device, compute_dtype=self.compute_dtype, double=self.double_quantisation)


def weights_dtype(tune: Tune, precision: Precision) -> torch.dtype:
    """The type that weights are loaded in: that of the products where they stay as they are, else float32.

    A bfloat16 weight has 8 significant bits: most steps of a full training are smaller than its last one, and lost.
    Weights under an adapter do not move, and autocast would round them for every product.
    """
    return torch.bfloat16 if precision == "bfloat16" and tune.adapts else torch.float32


def settle(experiment: Experiment, device: torch.device, config: PreTrainedConfig) -> Settings:
    """What an experiment trains with.

    Args:
        experiment: What is asked.
        device: Where.
        config: The architecture.

    Raises:
        whetstone.errors.UserError: The method or the optimiser needs bitsandbytes, which is missing or does not train
            on this device.
    """
    tune, notes = experiment.tune, list(_foreign_to_method(experiment.tune))
    precision = _precision(experiment, device, notes)
    checkpointing = tune.activation_checkpointing
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), PreTrainedModel)
    if checkpointing and not architecture.supports_gradient_checkpointing:
        notes.append(f"tune.activation_checkpointing is not applied: {config.model_type} does not support it.")
        checkpointing = False
    if tune.memory_fraction is not None and device.type == "cpu" and sys.platform != "linux":
        notes.append("tune.memory_fraction is not applied: this system does not enforce a cap on a process's memory.")
    compiled = tune.compile and _compiles(device, architecture, notes)
    settings = Settings(
        precision=precision,
        weights_dtype=weights_dtype(tune, precision),
        attention=_attention(tune, device, architecture, precision, notes, compiled=compiled),
        optimiser=_optimiser(tune, device, notes),
        compile=compiled,
        activation_checkpointing=checkpointing,
        quantised=tune.method == "qlora",
        double_quantisation=tune.double_quantisation,
        notes=(),
    )
    settings.quantisation(device)
    return replace(settings, notes=tuple(notes))


def load_settled(folder: Path, experiment: Experiment, device: torch.device) -> tuple[PreTrainedModel, Settings]:
    """Reads weights as an experiment trains them, and gives what was settled for them.

    Raises:
        whetstone.errors.UserError: They cannot be loaded, or not with what is asked.
    """
    settings = settle(experiment, device, load_config(folder))
    model = load_weights(
        folder,
        dtype=settings.weights_dtype,
        device=device,
        attention=settings.attention,
        quantisation=settings.quantisation(device),
    )
    return model, as_loaded(settings, model)


def as_loaded(settings: Settings, model: PreTrainedModel) -> Settings:
    """The settings with what a model really got: some architectures refuse an attention only when they are built."""
    attention = attention_of(model)
    if attention == settings.attention:
        return settings
    note = f"Attention '{settings.attention}' is not applied: the model refused it on loading; '{attention}' is used."
    return replace(settings, attention=attention, notes=(*settings.notes, note))


def _foreign_to_method(tune: Tune) -> Iterator[str]:
    """Settings other than the default that the method has no use for."""
    keys = () if tune.adapts else _ADAPTER_KEYS
    for key in keys if tune.method == "qlora" else (*keys, "double_quantisation"):
        if getattr(tune, key) != Tune.model_fields[key].default:
            owner = "of QLoRA" if key == "double_quantisation" else "of an adapter"
            yield f"tune.{key} is not applied: it is a setting {owner}, and the method is {tune.method}."


def _precision(experiment: Experiment, device: torch.device, notes: list[str]) -> Precision:
    asked, half = experiment.tune.precision, experiment.model.dtype == "bfloat16"
    natural: Precision = "bfloat16" if half or _multiplies_bfloat16(device) else "float32"
    if asked == "auto":
        return natural
    if asked == "float16" and device.type != "cuda":
        notes.append(f"tune.precision float16 is not applied: it needs CUDA; {natural} is used.")
        return natural
    if asked == "float32" and half and experiment.tune.adapts:
        notes.append(
            "tune.precision float32 is not applied: the weights are bfloat16 (model.dtype), and so are their products; "
            "set model.dtype to float32."
        )
        return natural
    return asked


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _attention(
    tune: Tune,
    device: torch.device,
    architecture: type[PreTrainedModel],
    precision: Precision,
    notes: list[str],
    *,
    compiled: bool,
) -> str:
    # On a CPU the compiler makes plain attention faster than SDPA's kernel, whose backward pass is slow on short rows.
    plain_is_faster = compiled and device.type == "cpu"
    default = "sdpa" if architecture._supports_sdpa and not plain_is_faster else "eager"
    asked = default if tune.attention == "auto" else tune.attention
    supported = {
        "sdpa": architecture._supports_sdpa,
        "eager": True,
        "flash_attention_2": architecture._supports_flash_attn,
        "flex_attention": architecture._supports_flex_attn,
    }
    obstacle = None
    if not supported[asked]:
        obstacle = f"{architecture.__name__} does not support it"
    elif asked.startswith("fl") and device.type != "cuda":
        obstacle = "it needs CUDA"
    elif asked == "flash_attention_2" and precision == "float32":
        obstacle = "it needs tune.precision bfloat16 or float16"
    elif asked == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        obstacle = "the package flash-attn is not installed"
    if obstacle is None:
        return asked
    notes.append(f"tune.attention {asked} is not applied: {obstacle}; {default} is used.")
    return default


def _optimiser(tune: Tune, device: torch.device, notes: list[str]) -> str:
    asked: str = tune.optimiser
    used = asked
    if device.type == "mps" and "adamw" in asked and asked != "adamw":
        used = "adamw"
        notes.append(f"tune.optimiser {asked} is not applied: bitsandbytes has no optimiser for MPS; adamw is used.")
    elif device.type == "cpu" and asked in _UNPAGED:
        used = _UNPAGED[asked]
        notes.append(
            f"tune.optimiser {asked} is not applied: there is no other memory to page to from a CPU; {used} is used, "
            "which computes the same."
        )
    if used not in ("adamw", "adafactor", "sgd"):
        require_bitsandbytes("tune.optimiser", used)
    return "adamw_torch" if used == "adamw" and device.type == "mps" else _TRANSFORMERS_OPTIMISERS[used]


def _compiles(device: torch.device, architecture: type[PreTrainedModel], notes: list[str]) -> bool:
    obstacle = None
    if not architecture._no_split_modules:
        obstacle = f"transformers does not say what a layer of {architecture.__name__} is"
    elif device.type == "mps":
        obstacle = "PyTorch's compiler does not support training on MPS"
    elif device.type == "cuda" and importlib.util.find_spec("triton") is None:
        obstacle = "the package triton is not installed"
    elif device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        obstacle = "it needs a C++ compiler (g++ or clang++)"
    elif device.type == "cpu" and not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        obstacle = "it needs the header files of Python (python3-dev)"
    if obstacle is not None:
        notes.append(f"tune.compile is not applied: {obstacle}; the layers run as they are.")
    return obstacle is None
