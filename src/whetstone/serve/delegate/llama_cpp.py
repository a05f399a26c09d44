"""llama.cpp behind ours: its own ``llama-server``, or the server of llama-cpp-python.

A GGUF file holds one model, so adapters are merged before it is written, and neither server ever has one: to use a
prefix that was computed with another adapter is what goes wrong in them. ``llama-server`` continues token ids, so our
template holds by construction. The server of llama-cpp-python takes text only; it renders the template in the file,
which is ours, and is not asked what it would render otherwise.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any

from whetstone.errors import UserError
from whetstone.serve.delegate.dialect import LLAMA_CPP_PYTHON, LLAMA_SERVER, Dialect
from whetstone.serve.delegate.order import Form, Prepared
from whetstone.serve.delegate.program import Launch

__all__ = ["LlamaCppPython", "LlamaServer", "llama_cpp_program"]

_F32 = 0
"""GGML_TYPE_F32: a cache of keys and values that rounds no more than weights in float32 do."""


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """``llama-server`` of llama.cpp.

    Attributes:
        program: The binary.
        threads: How many compute.
        parallel: Answers at once; the others wait.
        arguments: More of its own.
    """

    program: str
    threads: int
    parallel: int = 4
    arguments: tuple[str, ...] = ()
    title: str = "llama-server"
    engine: str = "llama.cpp"
    form: Form = "gguf"
    takes_token_ids: bool = True
    grace_s: float = 3.0
    """An open stream keeps it from ending."""

    def dialect(self, prepared: Prepared) -> Dialect:
        """Token ids."""
        return LLAMA_SERVER

    def check(self, prepared: Prepared) -> None:
        """Refuses more than one model.

        Raises:
            UserError: There are several.
        """
        _check_one(prepared)

    def launch(self, prepared: Prepared, port: int, key: str) -> Launch:
        """The command line; each of the answers at once has the whole context for itself."""
        options: dict[str, Any] = {
            "--model": prepared.path,
            "--alias": prepared.models[0].served.name,
            "--host": "127.0.0.1",
            "--port": port,
            "--ctx-size": prepared.context_tokens * self.parallel,
            "--parallel": self.parallel,
            "--threads": self.threads,
            "--threads-batch": self.threads,
            "--chat-template-file": prepared.template,
        }
        if prepared.dtype == "float32":
            options |= {"--cache-type-k": "f32", "--cache-type-v": "f32"}
        arguments = [str(part) for option in options.items() for part in option]
        return Launch((self.program, *arguments, "--jinja", "--no-webui", *self.arguments), {"LLAMA_API_KEY": key})

    def model(self, name: str) -> str:
        """The same name."""
        return name


@dataclass(frozen=True, slots=True)
class LlamaCppPython:
    """``llama_cpp.server`` of llama-cpp-python, which gives one answer at a time.

    Attributes:
        program: The interpreter of an environment that has it.
        threads: How many compute.
    """

    program: str
    threads: int
    title: str = "llama_cpp.server"
    engine: str = "llama.cpp"
    form: Form = "gguf"
    takes_token_ids: bool = False
    grace_s: float = 3.0

    def dialect(self, prepared: Prepared) -> Dialect:
        """Text, which it renders by the template in the file."""
        return LLAMA_CPP_PYTHON

    def check(self, prepared: Prepared) -> None:
        """Refuses more than one model.

        Raises:
            UserError: There are several.
        """
        _check_one(prepared)

    def launch(self, prepared: Prepared, port: int, key: str) -> Launch:
        """The command line; a second question must not cut the first answer off, as it does by default."""
        options: dict[str, Any] = {
            "--model": prepared.path,
            "--model_alias": prepared.models[0].served.name,
            "--host": "127.0.0.1",
            "--port": port,
            "--n_ctx": prepared.context_tokens,
            "--n_threads": self.threads,
            "--n_threads_batch": self.threads,
            "--chat_format": "chat_template.default",
            "--interrupt_requests": "false",
            "--logits_all": "false",
            "--cache": "false",
            "--verbose": "false",
        }
        if prepared.dtype == "float32":
            options |= {"--type_k": _F32, "--type_v": _F32}
        arguments = [str(part) for option in options.items() for part in option]
        return Launch((self.program, "-P", "-m", "llama_cpp.server", *arguments), {"API_KEY": key})

    def model(self, name: str) -> str:
        """The same name."""
        return name


def llama_cpp_program(program: str | None, *, threads: int | None = None) -> LlamaServer | LlamaCppPython:
    """The server of llama.cpp that is there.

    Args:
        program: ``llama-server``, or an interpreter that has llama-cpp-python; None for ``llama-server`` where it is
            on the path, else the interpreter that runs this.
        threads: How many compute; None for one less than there are cores, for the servers need one, too.
    """
    computing = threads or max(1, (os.cpu_count() or 2) - 1)
    found = program or shutil.which("llama-server")
    if found is None:
        return LlamaCppPython(sys.executable, computing)
    if "python" in os.path.basename(found):  # noqa: PTH119 (no file need be there)
        return LlamaCppPython(found, computing)
    return LlamaServer(found, computing)


def _check_one(prepared: Prepared) -> None:
    if len(prepared.models) != 1:
        names = ", ".join(model.served.name for model in prepared.models)
        raise UserError(f"llama.cpp serves one model, and these are {names}; start a server for each")
