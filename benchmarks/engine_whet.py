"""Whetstone's engines as contestants: the one place where the benchmarks call them."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from engine_load import CONTEXT_TOKENS, Answered, Ask
from engine_peers import Answerer
from transformers import BitsAndBytesConfig

from whetstone.engine.api import Engine, Request
from whetstone.engine.torch_engine import TorchEngine
from whetstone.models.load import load_template, load_weights

__all__ = ["Machine", "open_whet", "open_whet_on_llama_cpp", "tensor_bytes"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the weights are loaded as.

    Attributes:
        device: Where they go.
        dtype: Of those that are not quantised.
        quantisation: NF4, or None.
    """

    device: torch.device
    dtype: torch.dtype
    quantisation: BitsAndBytesConfig | None = None


@contextmanager
def open_whet(folder: Path, machine: Machine, adapters: Mapping[str, Path], rows: int) -> Iterator[Answerer]:
    """The engine in PyTorch. What it answered before is forgotten first, so that no prompt is there already.

    Args:
        folder: Of the model.
        machine: What the weights are loaded as.
        adapters: Folders of adapters, by name.
        rows: Requests at once, at most.
    """
    template, _ = load_template(folder, "auto")
    model = load_weights(folder, dtype=machine.dtype, device=machine.device, quantisation=machine.quantisation)
    engine = TorchEngine(model, template, adapters=adapters, max_rows=rows)

    def answer(asks: Sequence[Ask]) -> list[Answered]:
        engine.forget()
        return _answer(engine, asks)

    yield answer
    engine.close()


@contextmanager
def open_whet_on_llama_cpp(file: Path, folder: Path, threads: int) -> Iterator[Answerer]:
    """The engine over llama.cpp, with the template of the folder that the file was made of."""
    from whetstone.engine.llama_cpp import llama_cpp_engine  # needs an optional package

    template, _ = load_template(folder, "auto")
    engine = llama_cpp_engine(file, template, context_tokens=CONTEXT_TOKENS, threads=threads)
    yield lambda asks: _answer(engine, asks)
    engine.close()


def _answer(engine: Engine, asks: Sequence[Ask]) -> list[Answered]:
    """Asks any of Whetstone's engines."""
    requests = [Request(ask.prompt, ask.new_tokens, adapter=ask.adapter) for ask in asks]
    return [
        Answered(list(completion.token_ids), completion.text, completion.timing.token_s)
        for completion in engine.generate(requests)
    ]


def tensor_bytes() -> int:
    """Memory of all tensors that are alive, each storage once: right after an engine was opened, its weights."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    # Weights that oneDNN has packed hide where they lie, and each is alone in its memory.
    packed: int = sum(tensor.nbytes for tensor in tensors if tensor.is_mkldnn)
    plain = [tensor.untyped_storage() for tensor in tensors if not tensor.is_mkldnn]
    plain_bytes: int = sum({storage.data_ptr(): storage.nbytes() for storage in plain}.values())
    return packed + plain_bytes
