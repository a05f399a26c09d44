"""vLLM behind ours: its command line, and what it cannot serve as it was trained.

Prompts go to it as token ids, so our template holds by construction; the template is written for it all the same, for
whoever asks it past us. It stops at the tokens that ours stops at because each question names them:
``--generation-config vllm`` keeps it from drawing by settings that came with the model, and from the ends named there.

Sources: vllm/engine/arg_utils.py and vllm/lora/peft_helper.py of https://github.com/vllm-project/vllm.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whetstone.errors import UserError
from whetstone.files import read_json
from whetstone.serve.delegate.dialect import VLLM, Dialect
from whetstone.serve.delegate.order import Form, Prepared, PreparedModel
from whetstone.serve.delegate.program import Launch

__all__ = ["Vllm"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What ``--max-lora-rank`` may be."""

_MEND = "serve it merged (run:NAME#merged), or by torch"

_BEYOND = (
    ("use_dora", "DoRA"),
    ("lora_bias", "a bias beside its matrices"),
    ("modules_to_save", "modules that it replaces whole"),
    ("rank_pattern", "ranks of their own for some modules"),
    ("alpha_pattern", "scales of their own for some modules"),
    ("layers_to_transform", "some layers only"),
    ("layer_replication", "layers that stand in several places"),
    ("trainable_token_indices", "trained tokens"),
    ("target_parameters", "parameters that are no modules"),
    ("use_qalora", "QALoRA"),
    ("alora_invocation_tokens", "tokens that it is in force after"),
)
"""Settings of PEFT that vLLM refuses, or reads past in silence."""


@dataclass(frozen=True, slots=True)
class Vllm:
    """vLLM.

    Attributes:
        program: The command, of an environment of its own.
        queue: Answers that it takes at once, those that wait included.
        shutdown_s: How long it lets answers finish when it is told to end.
        arguments: More of its own.
    """

    program: str = "vllm"
    queue: int = 64
    shutdown_s: int = 5
    arguments: tuple[str, ...] = ()
    title: str = "vLLM"
    engine: str = "vllm"
    form: Form = "folders"
    takes_token_ids: bool = True

    @property
    def grace_s(self) -> float:
        """Its own time to finish, and some to give the accelerator back."""
        return self.shutdown_s + 15.0

    def dialect(self, prepared: Prepared) -> Dialect:
        """Token ids, with the tokens that end an answer."""
        return replace(VLLM, always={**VLLM.always, "stop_token_ids": list(prepared.stop_ids)})

    def check(self, prepared: Prepared) -> None:
        """Refuses adapters that vLLM would not take, or would compute otherwise.

        Raises:
            UserError: There is one.
        """
        for model in prepared.models:
            for reason in _refusals(model):
                raise UserError(f"{model.served.ref}: vLLM {reason}; {_MEND}")

    def launch(self, prepared: Prepared, port: int, key: str) -> Launch:
        """The command line; the key is in the environment, where other users cannot read it."""
        adapters = {model.served.name: model.adapter for model in prepared.models if model.adapter is not None}
        plain = [model.served.name for model in prepared.models if model.adapter is None]
        options: dict[str, Any] = {
            "--host": "127.0.0.1",
            "--port": port,
            "--tokenizer": prepared.tokenizer,
            "--dtype": prepared.dtype,
            "--max-model-len": prepared.context_tokens,
            "--chat-template": prepared.template,
            "--generation-config": "vllm",
            "--max-num-queued-reqs": self.queue,
            "--shutdown-timeout": self.shutdown_s,
        }
        command = [self.program, "serve", prepared.path]
        command += [str(part) for option in options.items() for part in option]
        # A base that nobody asked for gets a name that nobody knows.
        command += ["--served-model-name", *(plain or [f"base-{key[:16]}"])]
        if adapters:
            rank = max(_rank(adapter) for adapter in adapters.values())
            command += ["--enable-lora", "--max-loras", str(len(adapters))]
            command += ["--max-lora-rank", str(next(one for one in _RANKS if one >= rank))]
            said = [json.dumps({"name": name, "path": folder}) for name, folder in adapters.items()]
            command += ["--lora-modules", *said]
        # Adapters come with the command line alone, and no code with a model.
        environment = {"VLLM_API_KEY": key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0", "VLLM_NO_USAGE_STATS": "1"}
        return Launch((*command, "--no-trust-remote-code", *self.arguments), environment)

    def model(self, name: str) -> str:
        """The same name."""
        return name


def _refusals(model: PreparedModel) -> Iterator[str]:
    """Why vLLM cannot serve a model as it was trained."""
    served = model.served
    if served.random_weights:
        yield "reads weights from a folder, and these are random"
    if served.quantisation is not None:
        yield f"would not round the weights to {served.quantisation} as ours are"
    if model.adapter is None:
        return
    if model.trained_nf4:
        yield "would put the adapter on the whole base, and it was trained on one in NF4"
    config = read_json(Path(model.adapter) / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        yield f"takes LoRA adapters alone, and this is {config.get('peft_type')}"
    for setting, words in _BEYOND:
        if config.get(setting):
            yield f"takes no adapter with {words} ({setting})"
    if config.get("bias", "none") != "none":
        yield f"takes no adapter that trained biases (bias: {config['bias']})"
    if config["r"] > _RANKS[-1]:
        yield f"takes adapters up to rank {_RANKS[-1]}, and this one has {config['r']}"


def _rank(adapter: str) -> int:
    return int(read_json(Path(adapter) / "adapter_config.json")["r"])
