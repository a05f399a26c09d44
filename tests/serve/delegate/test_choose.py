"""Who serves what was named on the command line."""

from dataclasses import replace
from pathlib import Path

import pytest

from whetstone.errors import UserError
from whetstone.serve.delegate.choose import delegate_backend, http_backend, is_elsewhere
from whetstone.serve.delegate.delegate_backend import DelegateBackend
from whetstone.serve.delegate.http_backend import HttpBackend
from whetstone.serve.launch import make_backends
from whetstone.serve.options import ServeOptions
from whetstone.serve.worker.local_backend import LocalBackend
from whetstone.serve.worker.protocol import Opening
from whetstone.serve_section import Serve

OPTIONS = ServeOptions(
    ("run:demo", "far=https://a.example/v1#m", "run:other"), Serve(fallback=("http://localhost/v1#f",)), force=True
)


def test_one_process_for_all_models_of_this_machine() -> None:
    backends = make_backends(OPTIONS)
    assert [type(one) for one in backends.own] == [LocalBackend, HttpBackend]
    assert [one.name for one in backends.fallbacks] == ["http http://localhost/v1"]
    here = make_backends(replace(OPTIONS, refs=("https://a.example/v1#m", "run:demo")))
    assert [type(one) for one in here.own] == [HttpBackend, LocalBackend]


def test_another_program_computes_where_it_is_named() -> None:
    backends = make_backends(replace(OPTIONS, backend="vllm", program="/opt/vllm"))
    assert [type(one) for one in backends.own] == [DelegateBackend, HttpBackend]
    assert backends.own[0].name == "vLLM"
    assert delegate_backend("llamacpp", Opening(("run:a",), "runs"), program="/venv/python").name == "llama_cpp.server"
    assert delegate_backend("mlx", Opening(("run:a",), "runs")).name == "mlx_lm.server"


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(UserError, match="--backend"):
        make_backends(replace(OPTIONS, program="/opt/vllm"))
    with pytest.raises(UserError, match="--adapter-root"):
        make_backends(replace(OPTIONS, backend="vllm", adapter_roots=(Path("adapters"),)))
    with pytest.raises(UserError, match="--dtype"):
        make_backends(replace(OPTIONS, backend="mlx", dtype="int8"))
    with pytest.raises(UserError, match="NAME=REF"):
        make_backends(replace(OPTIONS, refs=("run:demo", "demo=https://a.example/v1#m")))
    with pytest.raises(UserError, match=r"far=https://a\.example/v1#m: not served: .*--force"):
        make_backends(replace(OPTIONS, force=False))


def test_addresses() -> None:
    assert is_elsewhere("far=http://localhost:1/v1#m") and is_elsewhere("https://a.example/v1#m")
    assert is_elsewhere("https://a.example/v1") and not is_elsewhere("run:demo")
    with pytest.raises(UserError, match="which model"):
        http_backend("https://a.example/v1")
    with pytest.raises(UserError, match="no address"):
        http_backend("run:demo")


def test_keys_go_where_they_belong() -> None:
    keys = {"WHETSTONE_API_KEY": "mine", "OPENAI_API_KEY": "theirs"}
    with pytest.raises(UserError, match="plain http"):
        http_backend("http://a.example/v1#m", keys)
    http_backend("http://a.example/v1#m", {"OPENAI_API_KEY": "theirs"})
    assert http_backend("https://api.openai.com/v1#m", {"OPENAI_API_KEY": "theirs"})._key == "theirs"
    assert http_backend("https://a.example/v1#m", keys)._key == "mine"
