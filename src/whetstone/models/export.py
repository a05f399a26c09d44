"""From the name of a model to one file that other programs run."""

import tempfile
from pathlib import Path

import torch

from whetstone.errors import UserError
from whetstone.files import write_atomic
from whetstone.models.fingerprint import digest_weights
from whetstone.models.gguf import GgufType, export_gguf
from whetstone.models.merge import merge
from whetstone.models.ref import RunModel, Weights, is_there, parse_ref
from whetstone.models.resolve import Resolver

__all__ = ["export_model"]

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def export_model(ref: str, file: Path, dtype: GgufType, runs: Path) -> str:
    """Writes a model as a GGUF file, an adapter merged in, with the tokenizer that it was tuned with beside it.

    Args:
        ref: A run, a model folder or hub id, or BASE+ADAPTER.
        file: Where to.
        dtype: Of the matrices.
        runs: The folder that holds the runs.

    Returns:
        Hash of the weights that the file was made of.

    Raises:
        UserError: The model is not there, or GGUF has no place for it.
    """
    model = parse_ref(ref, is_there)
    if not isinstance(model, RunModel | Weights) or model.precision is not None:
        raise UserError(f"{ref}: give a run, a model folder or BASE+ADAPTER; how it is rounded says --dtype")
    resolved = Resolver(runs).resolve(model)
    tokenizer = resolved.tokenizer or resolved.path
    for name in _TOKENIZER:
        ours, there = tokenizer / name, file.parent / name
        if ours.exists() and there.exists() and ours.read_bytes() != there.read_bytes():
            raise UserError(f"{there}: is of another model, and {file.name} needs its own there; name another folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as folder:
        source, merged = resolved.path, None
        if resolved.adapter is not None and resolved.sha256 is not None and resolved.adapter_sha256 is not None:
            merged = resolved.sha256, resolved.adapter_sha256
            source = Path(folder) / "merged"
            merge(resolved.path, resolved.adapter, source, torch.float32)
        for name in _TOKENIZER:
            if (tokenizer / name).exists():
                write_atomic(file.parent / name, (tokenizer / name).read_text(encoding="utf-8"))
        export_gguf(source, file, dtype, merged)
        return digest_weights(source)
