"""Which backend serves what was named: a program of somebody else here, or a server somewhere else."""

import os
import sys
from collections.abc import Mapping, Sequence

from whetstone.engine.server_key import key_for
from whetstone.errors import UserError
from whetstone.models.ref import Server, is_there
from whetstone.serve.delegate.delegate_backend import DelegateBackend
from whetstone.serve.delegate.http_backend import HttpBackend
from whetstone.serve.delegate.llama_cpp import llama_cpp_program
from whetstone.serve.delegate.mlx import Mlx
from whetstone.serve.delegate.program import Program
from whetstone.serve.delegate.vllm import Vllm
from whetstone.serve.options import DelegateKind
from whetstone.serve.proof.names import NamedModel, name_models
from whetstone.serve.worker.protocol import Opening

__all__ = ["delegate_backend", "http_backend", "is_elsewhere"]


def is_elsewhere(ref: str) -> bool:
    """Whether a server somewhere else answers for ``[NAME=]REF``."""
    try:
        return isinstance(_read(ref).model, Server)
    except UserError:
        # Whoever opens it says better what is wrong; what is meant as an address is none of this machine's models.
        return ref.partition("=")[2].startswith(("http://", "https://")) or ref.startswith(("http://", "https://"))


def http_backend(ref: str, environment: Mapping[str, str] = os.environ) -> HttpBackend:
    """The backend of a model of a server somewhere else.

    Args:
        ref: ``[NAME=]http://HOST/v1#MODEL``.
        environment: Holds ``WHETSTONE_API_KEY``; the key of OpenAI goes to nobody but OpenAI.

    Raises:
        UserError: It is no such name, or the key would travel in the clear.
    """
    named = _read(ref)
    server = named.model
    if not isinstance(server, Server):
        raise UserError(f"{ref}: no address; give http://HOST:PORT/v1#MODEL")
    return HttpBackend(server.url, server.model, name=named.name, api_key=key_for(server.url, environment))


def delegate_backend(kind: DelegateKind, opening: Opening, *, program: str | None = None) -> DelegateBackend:
    """The backend of models that a program of somebody else computes.

    Args:
        kind: Of the program.
        opening: What to serve.
        program: Where it is: the command ``vllm`` or ``llama-server``, or the interpreter of an environment that has
            llama-cpp-python or mlx-lm; None for what is on the path, or in the environment of this program.

    Raises:
        UserError: The options are none for it.
    """
    if opening.adapter_roots:
        raise UserError(f"--adapter-root: {kind} takes no adapters while it runs; leave out --backend")
    if opening.dtype is not None:
        raise UserError(f"--dtype: {kind} takes weights as they are stored, or as their run says; leave it out")
    return DelegateBackend(_program(kind, program), opening)


def _program(kind: DelegateKind, program: str | None) -> Program:
    if kind == "vllm":
        return Vllm(program or "vllm")
    if kind == "mlx":
        return Mlx(program or sys.executable)
    return llama_cpp_program(program)


def _read(ref: str) -> NamedModel:
    names: Sequence[NamedModel] = name_models([ref], is_there)
    return names[0]
