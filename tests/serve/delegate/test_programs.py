"""Command lines, and what is refused before anything is started."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from whetstone.data.example import Message
from whetstone.engine.api import Constraint, Sampling
from whetstone.errors import UserError
from whetstone.serve.delegate.dialect import LLAMA_CPP_PYTHON, LLAMA_SERVER, MLX, VLLM, Dialect
from whetstone.serve.delegate.llama_cpp import LlamaCppPython, LlamaServer, llama_cpp_program
from whetstone.serve.delegate.mlx import Mlx
from whetstone.serve.delegate.order import Prepared, PreparedModel
from whetstone.serve.delegate.vllm import Vllm
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Question
from whetstone.serve.served_model import ServedModel

QUESTION = Question("demo", (Message("user", "Hi"),), 9, Sampling(), seed=4)


def model(name: str = "demo", **more: Any) -> PreparedModel:
    return PreparedModel(ServedModel(name=name, ref=f"run:{name}", engine="vllm", origin="a test"), **more)


def adapter(folder: Path, **settings: Any) -> str:
    folder.mkdir()
    said = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "target_modules": ["q_proj"], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return str(folder)


def prepared(*models: PreparedModel) -> Prepared:
    return Prepared("/weights", "/tokenizer", "/template.jinja", "bfloat16", 4096, (1, 7), models or (model(),))


def options(command: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in pairwise(command) if name.startswith("--")}


def test_vllm_with_a_base_and_two_adapters(tmp_path: Path) -> None:
    small, large = adapter(tmp_path / "small"), adapter(tmp_path / "large", r=40, use_rslora=True)
    told = prepared(model("base"), model("small", adapter=small), model("large", adapter=large))
    program = Vllm("/opt/vllm/bin/vllm", queue=12)
    program.check(told)
    launch = program.launch(told, 4123, "secret")
    said = options(launch.command)
    assert launch.command[:3] == ("/opt/vllm/bin/vllm", "serve", "/weights")
    assert said["--served-model-name"] == "base"
    assert (said["--max-lora-rank"], said["--max-loras"]) == ("64", "2")
    assert (said["--max-model-len"], said["--dtype"], said["--port"]) == ("4096", "bfloat16", "4123")
    assert (said["--chat-template"], said["--tokenizer"]) == ("/template.jinja", "/tokenizer")
    assert (said["--generation-config"], said["--max-num-queued-reqs"], said["--host"]) == ("vllm", "12", "127.0.0.1")
    begin = launch.command.index("--lora-modules") + 1
    assert [json.loads(one)["name"] for one in launch.command[begin : begin + 2]] == ["small", "large"]
    assert "--no-trust-remote-code" in launch.command
    assert launch.environment["VLLM_API_KEY"] == "secret" and "secret" not in " ".join(launch.command)
    assert program.dialect(told).always["stop_token_ids"] == [1, 7]


def test_vllm_hides_a_base_that_nobody_asked_for(tmp_path: Path) -> None:
    told = prepared(model(adapter=adapter(tmp_path / "a")))
    said = options(Vllm().launch(told, 1, "k" * 40).command)
    assert said["--served-model-name"] == "base-" + "k" * 16


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"bias": "all"}, "bias: all"),
        ({"r": 1024}, "rank 512"),
        ({"peft_type": "LOHA"}, "LOHA"),
    ],
)
def test_vllm_refuses_adapters(settings: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match) as caught:
        Vllm().check(prepared(model(adapter=adapter(tmp_path / "a", **settings))))
    assert "run:NAME#merged" in str(caught.value)


def test_vllm_refuses_an_adapter_of_another_base(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NF4"):
        Vllm().check(prepared(model(adapter=adapter(tmp_path / "a"), trained_nf4=True)))
    Vllm().check(prepared(model(trained_nf4=True)))


def test_llama_server_has_no_adapters_and_our_order_of_sampling() -> None:
    program = llama_cpp_program("/usr/bin/llama-server", threads=3)
    assert isinstance(program, LlamaServer)
    launch = program.launch(replace(prepared(), dtype="float32"), 5, "secret")
    said = options(launch.command)
    assert (said["--ctx-size"], said["--parallel"], said["--threads"]) == ("16384", "4", "3")
    assert (said["--cache-type-k"], said["--chat-template-file"]) == ("f32", "/template.jinja")
    assert not any("lora" in one for one in launch.command)
    assert launch.environment == {"LLAMA_API_KEY": "secret"}
    schema = Constraint("json_schema", '{"type": "object"}')
    asked = program.dialect(prepared()).ask(replace(QUESTION, constraint=schema, logprobs=0), (5, 6), "demo", 512)
    assert asked.path == "completions"
    assert asked.body["samplers"] == ["penalties", "temperature", "top_k", "top_p", "min_p"]
    assert (asked.body["top_k"], asked.body["min_p"], asked.body["prompt"]) == (0, 0.0, [5, 6])
    assert (asked.body["json_schema"], asked.body["logprobs"]) == ({"type": "object"}, 1)
    assert "response_format" not in asked.body


def test_llama_cpp_of_python_does_not_cut_answers_off() -> None:
    program = llama_cpp_program("/venv/bin/python3", threads=1)
    assert isinstance(program, LlamaCppPython)
    launch = program.launch(prepared(), 5, "secret")
    said = options(launch.command)
    assert launch.command[:4] == ("/venv/bin/python3", "-P", "-m", "llama_cpp.server")
    assert (said["--interrupt_requests"], said["--n_threads"], said["--n_ctx"]) == ("false", "1", "4096")
    assert (said["--chat_format"], said["--logits_all"]) == ("chat_template.default", "false")
    assert launch.environment == {"API_KEY": "secret"}


def test_mlx_is_always_asked_for_its_first_model() -> None:
    program = Mlx("/venv/bin/python", cache_bytes=1000)
    said = options(program.launch(prepared(), 5, "").command)
    assert (said["--model"], said["--prompt-cache-bytes"]) == ("/weights", "1000")
    asked = program.dialect(prepared()).ask(QUESTION, QUESTION.prompt, program.model("demo"), 512)
    assert asked.body["model"] == "default_model"
    assert "seed" not in asked.body  # it would be answered alone
    assert asked.body["messages"] == [{"role": "user", "content": "Hi"}]
    drawn = program.dialect(prepared()).ask(replace(QUESTION, sampling=Sampling(1.0)), "text", "m", 512)
    assert (drawn.body["seed"], drawn.body["prompt"]) == (4, "text")


@pytest.mark.parametrize("program", [Mlx(), LlamaServer("llama-server", 1), LlamaCppPython("python", 1)])
def test_one_model_a_program(program: Mlx | LlamaServer | LlamaCppPython) -> None:
    with pytest.raises(UserError, match="one, two"):
        program.check(prepared(model("one"), model("two")))


@pytest.mark.parametrize(
    ("dialect", "question", "param"),
    [
        (MLX, replace(QUESTION, constraint=Constraint("json_schema", "{}")), "response_format"),
        (MLX, replace(QUESTION, constraint=Constraint("regex", "a")), "structured_outputs"),
        (MLX, replace(QUESTION, logprobs=1), "logprobs"),
        (MLX, replace(QUESTION, sampling=Sampling(repetition_penalty=1.2)), "repetition_penalty"),
        (MLX, replace(QUESTION, sampling=Sampling(0.7, 0.9)), "temperature"),
        (LLAMA_CPP_PYTHON, replace(QUESTION, sampling=Sampling(0.7, min_p=0.1)), "temperature"),
        (LLAMA_CPP_PYTHON, replace(QUESTION, prompt=(1, 2)), "prompt"),
        (LLAMA_SERVER, replace(QUESTION, constraint=Constraint("regex", "a")), "structured_outputs"),
        (VLLM, replace(QUESTION, prompt=""), "prompt"),
    ],
)
def test_what_a_program_would_do_otherwise_is_refused(dialect: Dialect, question: Question, param: str) -> None:
    with pytest.raises(ServeError) as caught:
        dialect.ask(question, question.prompt, "m", 512)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_vllm_is_asked_for_ids_and_by_one_name() -> None:
    question = replace(QUESTION, sampling=Sampling(0.7, 0.9, 5, 0.1, 1.2), constraint=Constraint("regex", "a"))
    body = VLLM.ask(question, (1, 2), "demo", 512).body
    assert body["return_token_ids"] is True
    assert body["structured_outputs"] == {"regex": "a"}
    assert {"repetition_penalty", "top_k", "min_p"} <= body.keys()
    assert not {"guided_regex", "repeat_penalty", "repeat_last_n", "return_tokens_as_token_ids"} & body.keys()
