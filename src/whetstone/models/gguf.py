"""Writes a model folder as one GGUF file, the format of llama.cpp and of all that is built on it.

A tensor is read, rearranged, rounded and written before the next one is read, so that a model needs not fit in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import safe_open

from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.files import replacing
from whetstone.models.fingerprint import digest_weights
from whetstone.models.load import load_config, load_template

try:
    from gguf import GGML_QUANT_SIZES, MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize

    from whetstone.models.gguf_architecture import (
        ARCHITECTURES,
        Placed,
        UnsupportedError,
        place_tensors,
        rope_tensors,
        write_parameters,
    )
    from whetstone.models.gguf_vocabulary import write_vocabulary
except ModuleNotFoundError as error:
    raise UserError(f"GGUF needs {error.name}, which is not installed: pip install 'whetstone[gguf]'") from None

__all__ = ["ADAPTER_KEY", "BASE_KEY", "SHA256_KEY", "GgufType", "export_gguf"]

GgufType = Literal["float32", "bfloat16", "float16", "q8_0"]
"""Of the matrices; ``q8_0`` has 8 bits for each weight and a scale for each 32."""

SHA256_KEY = "whetstone.source_sha256"
"""The metadata that says which weights the file was made of, as :func:`digest_weights` names them."""

BASE_KEY, ADAPTER_KEY = "whetstone.base_sha256", "whetstone.adapter_sha256"
"""The same of a base and an adapter that were merged for it."""

_TYPES = {
    "float32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "bfloat16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "float16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where a tensor of the model lies."""

    file: Path
    shape: tuple[int, ...]


def export_gguf(folder: Path, file: Path, dtype: GgufType, merged: tuple[str, str] | None = None) -> None:
    """Writes a GGUF file of a model, with its tokenizer and chat template.

    Norms and biases stay float32; with ``q8_0`` a matrix whose rows are no multiple of 32 long is float16.

    Args:
        folder: A model directory, adapters merged in (:func:`whetstone.models.merge.merge`).
        file: The file to write; it appears whole.
        dtype: Of the matrices.
        merged: Hashes of the base and the adapter that the model was merged from.

    Raises:
        UserError: llama.cpp cannot compute the architecture as it is configured, has no name for its tokenizer, or the
            file cannot be written.
    """
    config = load_config(folder)
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{folder}: a {config.model_type} cannot be written as GGUF; these can: {known}")
    template, end_ids = _template(folder)
    stored = _stored(folder)
    quantisation, file_type = _TYPES[dtype]
    try:
        with replacing(file) as partial:
            writer = GGUFWriter(partial, MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type].kind])
            writer.add_name(file.stem)
            writer.add_file_type(file_type)
            writer.add_string(SHA256_KEY, digest_weights(folder))
            if merged is not None:
                writer.add_string(BASE_KEY, merged[0])
                writer.add_string(ADAPTER_KEY, merged[1])
            write_parameters(writer, config)
            placed = list(place_tensors(config, stored))
            embeddings = next(place.source for place in placed if place.name == "token_embd.weight")
            write_vocabulary(writer, template, end_ids, stored[embeddings].shape[0])
            _write_tensors(writer, placed, stored, rope_tensors(config), quantisation)
            writer.close()
    except UnsupportedError as error:
        raise UserError(f"{folder}: cannot be written as GGUF: {error}") from None


def _template(folder: Path) -> tuple[Template, list[int]]:
    """The folder's own template; a base that has none is asked as plain text."""
    try:
        return load_template(folder, "auto")
    except UserError:
        return load_template(folder, "plain")


def _stored(folder: Path) -> dict[str, _Stored]:
    stored = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                stored[name] = _Stored(file, tuple(tensors.get_slice(name).get_shape()))
    return stored


def _write_tensors(
    writer: GGUFWriter,
    placed: list[Placed],
    stored: Mapping[str, _Stored],
    constants: Mapping[str, torch.Tensor],
    quantisation: GGMLQuantizationType,
) -> None:
    """Writes the header, which says where each tensor will be, and then the tensors."""
    types = [_type_of(stored[place.source].shape, quantisation) for place in placed]
    for name, tensor in constants.items():
        _announce(writer, name, tuple(tensor.shape), GGMLQuantizationType.F32)
    for place, kind in zip(placed, types, strict=True):
        _announce(writer, place.name, stored[place.source].shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in constants.values():
        writer.write_tensor_data(tensor.float().numpy())
    for place, kind in zip(placed, types, strict=True):
        with safe_open(stored[place.source].file, framework="pt") as tensors:
            tensor = place.transform(tensors.get_tensor(place.source))
        writer.write_tensor_data(quantize(tensor.float().contiguous().numpy(), kind))


def _announce(writer: GGUFWriter, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> None:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    size_bytes = torch.Size(shape).numel() // block * block_bytes
    writer.add_tensor_info(name, shape, np.dtype(np.float32), size_bytes, raw_dtype=kind)


def _type_of(shape: tuple[int, ...], quantisation: GGMLQuantizationType) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    block, _ = GGML_QUANT_SIZES[quantisation]
    return quantisation if shape[-1] % block == 0 else GGMLQuantizationType.F16
