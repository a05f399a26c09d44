"""Identity of weights: a hash of the tensors and of the configuration that says how they are used."""

import hashlib
from pathlib import Path

from torch import nn

from whetstone.errors import UserError
from whetstone.run import WeightsRecord

__all__ = ["digest_weights", "record_weights"]


def digest_weights(folder: Path) -> str:
    """SHA-256 over the safetensors files of a folder, in the order of their names, and the configuration beside them.

    The same LoRA tensors under another ``lora_alpha`` are another model.

    Raises:
        UserError: The folder holds no safetensors; other formats are never loaded.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no *.safetensors file; convert the weights (pickled formats are never loaded)")
    digest = hashlib.sha256()
    configurations = [folder / name for name in ("config.json", "adapter_config.json", "generation_config.json")]
    for file in (*files, *(path for path in configurations if path.exists())):
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def record_weights(origin: str, folder: Path, model: nn.Module) -> WeightsRecord:
    """What the manifest says of a model: origin, hash, and number of parameters."""
    return WeightsRecord(
        origin=origin,
        sha256=digest_weights(folder),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )
