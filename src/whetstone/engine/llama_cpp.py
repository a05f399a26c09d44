"""Answers one request at a time with llama.cpp, through its C interface.

llama.cpp keeps the keys and values of the last request; a request that begins alike computes only what is new. The
binding's own classes are left aside: they copy and convert the logits of every position, which costs more than a small
model itself.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from whetstone.data.template import Template
from whetstone.engine.one_at_a_time import OneAtATime
from whetstone.engine.worker import Worker
from whetstone.errors import UserError
from whetstone.models.device import limit_threads

try:
    import llama_cpp
except (ImportError, OSError, RuntimeError) as error:
    reason = str(error).strip().splitlines()[0]
    raise UserError(f"GGUF models need llama-cpp-python ({reason}): pip install 'whetstone[gguf]'") from None

__all__ = ["LlamaCppSource", "llama_cpp_engine"]

_CONTEXT_TOKENS = 4096
"""How long a context is unless more is asked for; its memory is set aside at once."""

_BATCH_TOKENS = 512
_ERROR_LEVEL = 3
_ALL_FLOAT32 = "0"

_errors: list[str] = []


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_errors(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """llama.cpp writes hundreds of lines to standard error; only why something failed is kept."""
    if level == _ERROR_LEVEL:
        _errors.append(text.decode(errors="replace").strip())


class LlamaCppSource:
    """Logits of one GGUF model, one sequence at a time.

    Attributes:
        context_tokens: How long prompt and answer may be together.
        reused_tokens: How many tokens of the last prompt were not computed, because the request before began alike.
        threads: How many compute.
    """

    def __init__(self, file: Path, *, context_tokens: int | None = None, threads: int | None = None) -> None:
        """Reads the model.

        Args:
            file: A GGUF file.
            context_tokens: None for 4096, or for what the model takes where that is less.
            threads: How many compute; None for as many as torch would use.

        Raises:
            UserError: llama.cpp cannot read the file, or there is no memory for so long a context.
        """
        llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model = _load(file)
        trained = llama_cpp.llama_model_n_ctx_train(self._model)
        self.context_tokens = min(context_tokens or _CONTEXT_TOKENS, trained)
        limit_threads()
        # One thread more than there are cores makes all of them wait for each other at every layer.
        self.threads = threads or torch.get_num_threads()
        self.reused_tokens = 0
        self._context = self._make_context(file)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = _Batch(_BATCH_TOKENS)
        self._held: list[int] = []
        self._closed = False
        self._address, self._logits = 0, torch.empty(0)

    def metadata(self, key: str) -> str | None:
        """What the file says under a key; None if it says nothing."""
        return _metadata(self._model, key)

    def start(self, token_ids: Sequence[int], adapter: str | None = None) -> torch.Tensor:
        """Reads a prompt.

        Args:
            token_ids: The prompt.
            adapter: None, since a GGUF file has its adapter merged in.

        Returns:
            The float32 logits of the next token, in llama.cpp's own memory: they hold until the next call, and are not
            to be changed.
        """
        # The last token is computed again where all are held: its logits are gone.
        same = min(_common(self._held, token_ids), len(token_ids) - 1)
        if not llama_cpp.llama_memory_seq_rm(self._memory, 0, same, -1):
            llama_cpp.llama_memory_clear(self._memory, False)
            same = 0
        self.reused_tokens = same
        del self._held[same:]
        for begin in range(same, len(token_ids), _BATCH_TOKENS):
            piece = token_ids[begin : begin + _BATCH_TOKENS]
            self._decode(piece, wanted=begin + len(piece) == len(token_ids))
        return self._last_logits()

    def advance(self, token_id: int) -> torch.Tensor:
        """Reads one more token; the logits are those that :meth:`start` speaks of."""
        self._decode((token_id,), wanted=True)
        return self._last_logits()

    def close(self) -> None:
        """Gives memory back; to close twice is nothing."""
        if self._closed:
            return
        self._closed = True
        self._logits = torch.empty(0)
        self._batch.close()
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def _make_context(self, file: Path) -> llama_cpp.llama_context_p:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = self.context_tokens
        parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
        parameters.n_seq_max = 1
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.no_perf = True
        # Layers with a window keep all of it, too: else no prefix could be used again.
        parameters.swa_full = True
        if self.metadata("general.file_type") == _ALL_FLOAT32:
            # The default of float16 would round what the weights do not.
            parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context: llama_cpp.llama_context_p = llama_cpp.llama_init_from_model(self._model, parameters)
        if not context:
            llama_cpp.llama_model_free(self._model)
            raise UserError(
                f"{file}: no context of {self.context_tokens} tokens can be made ({_last_error()}); ask for fewer"
            )
        return context

    def _decode(self, token_ids: Sequence[int], *, wanted: bool) -> None:
        """Computes tokens that follow those held; logits are made for the last one, where they are wanted."""
        self._batch.fill(token_ids, len(self._held), wanted=wanted)
        status = llama_cpp.llama_decode(self._context, self._batch.struct)
        if status != 0:
            llama_cpp.llama_memory_clear(self._memory, False)
            self._held.clear()
            raise RuntimeError(f"llama.cpp failed with status {status}: {_last_error()}")
        self._held += token_ids

    def _last_logits(self) -> torch.Tensor:
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        address = ctypes.addressof(pointer.contents)
        if address != self._address:
            view = np.ctypeslib.as_array(pointer, shape=(self._vocabulary_size,))
            self._address, self._logits = address, torch.from_numpy(view)
        return self._logits


class _Batch:
    """Tokens as llama.cpp takes them, of one sequence."""

    def __init__(self, size: int) -> None:
        self.struct = llama_cpp.llama_batch_init(size, 0, 1)
        self._tokens = np.ctypeslib.as_array(self.struct.token, shape=(size,))
        self._positions = np.ctypeslib.as_array(self.struct.pos, shape=(size,))
        self._wanted = np.ctypeslib.as_array(self.struct.logits, shape=(size,))
        np.ctypeslib.as_array(self.struct.n_seq_id, shape=(size,))[:] = 1
        for index in range(size):
            self.struct.seq_id[index][0] = 0
        self._wanted[:] = 0

    def fill(self, token_ids: Sequence[int], position: int, *, wanted: bool) -> None:
        count = len(token_ids)
        self._wanted[self.struct.n_tokens - 1] = 0
        self._tokens[:count] = token_ids
        self._positions[:count] = range(position, position + count)
        self._wanted[count - 1] = wanted
        self.struct.n_tokens = count

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.struct)


def llama_cpp_engine(
    file: Path, template: Template, *, context_tokens: int | None = None, threads: int | None = None
) -> Worker:
    """An engine over a GGUF file.

    Args:
        file: The model, as :func:`whetstone.models.gguf.export_gguf` writes it, or any other of the same tokens.
        template: With the tokenizer that the model was trained with.
        context_tokens: How long prompt and answer may be together; None for 4096 or what the model takes.
        threads: How many compute; None for as many as torch would use.

    Raises:
        UserError: llama.cpp cannot read the file.
    """
    source = LlamaCppSource(file, context_tokens=context_tokens, threads=threads)
    stop_ids = template.stop_ids(_end_ids(source))
    core = OneAtATime(source, template.tokenizer, stop_ids=stop_ids, context_tokens=source.context_tokens)
    return Worker(core)


def _load(file: Path) -> llama_cpp.llama_model_p:
    _errors.clear()
    if not file.is_file():
        raise UserError(f"{file}: no such file; give a GGUF file")
    parameters = llama_cpp.llama_model_default_params()
    # The layouts for AMX end the process on virtual machines that show AMX and have none (0.3.36, q8_0).
    parameters.use_extra_bufts = False
    model: llama_cpp.llama_model_p = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
    if not model:
        raise UserError(f"{file}: llama.cpp cannot read it ({_last_error()}); export it again")
    return model


def _metadata(model: llama_cpp.llama_model_p, key: str) -> str | None:
    buffer = ctypes.create_string_buffer(4096)
    length = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode() if length >= 0 else None


def _end_ids(source: LlamaCppSource) -> list[int]:
    """What ends generation by the file: all that the model's settings named, or the three that GGUF has places for."""
    ours = source.metadata("whetstone.end_token_ids")
    if ours is not None:
        return [int(token_id) for token_id in ours.split()]
    said = (source.metadata(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom"))
    return [int(token_id) for token_id in said if token_id is not None]


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


def _last_error() -> str:
    return _errors[-1] if _errors else "it does not say why"
