"""A base and its adapter as one model: what engines without adapters need, and what is given away."""

import shutil
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from whetstone.errors import UserError
from whetstone.files import atomic_folder, written_by_libraries
from whetstone.models.adapter import load_adapter
from whetstone.models.fingerprint import digest_weights
from whetstone.models.load import load_weights

__all__ = ["merge"]

_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def merge(base_folder: Path, adapter_folder: Path, out: Path, dtype: torch.dtype) -> str:
    """Writes the base with the adapter merged in, as a model folder that needs no PEFT.

    The sums are made in float32 and rounded once: what an adapter adds to a weight is often less than bfloat16 can add.
    An adapter that was trained on a 4-bit base is merged into the weights that were quantised for it.

    Args:
        base_folder: A model directory.
        adapter_folder: What tuning saved; its tokenizer and chat template go with the model where it has them.
        out: The folder to write; it appears whole.
        dtype: Of the weights written.

    Returns:
        The hash of the merged weights.

    Raises:
        UserError: The adapter does not fit the base, the sums are not finite, or the folder cannot be written.
    """
    logging.disable_progress_bar()
    wide = torch.promote_types(torch.float32, dtype)
    adapted = load_adapter(load_weights(base_folder, dtype=wide, device=torch.device("cpu")), adapter_folder)
    _untie(adapted)
    try:
        merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UserError(
            f"{adapter_folder}: cannot be merged ({error}); tune again with a lower learning rate"
        ) from None
    tokenizer = adapter_folder if (adapter_folder / "tokenizer_config.json").exists() else base_folder
    with written_by_libraries(out, "free some space and merge again"), atomic_folder(out) as folder:
        merged.to(dtype).save_pretrained(folder)
        for name in _TOKENIZER_FILES:
            if (tokenizer / name).exists():
                shutil.copyfile(tokenizer / name, folder / name)
    return digest_weights(out)


def _untie(adapted: PeftModel) -> None:
    """Parts output head and embeddings that share a weight, where the adapter changes one of them alone."""
    model = adapted.get_base_model()
    head = model.get_output_embeddings()
    changed = [isinstance(end, BaseTunerLayer) for end in (model.get_input_embeddings(), head)]
    if model.config.tie_word_embeddings and any(changed):
        model.config.tie_word_embeddings = False
        layer = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
