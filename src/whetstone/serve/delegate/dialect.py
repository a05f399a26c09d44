"""How a question is put to a server of another program, and what such a server cannot be asked.

Every field that changes an answer either reaches a server that is known to read it, or the question is refused; the
names of the fields are those of :func:`whetstone.engine.http_wire.payload`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from whetstone.data.example import Message
from whetstone.engine.api import Request
from whetstone.engine.http_wire import HttpMode, payload
from whetstone.engine.room import USUAL_NEW_TOKENS
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Question

__all__ = [
    "LLAMA_CPP_PYTHON",
    "LLAMA_SERVER",
    "MLX",
    "UNKNOWN",
    "VLLM",
    "Asked",
    "Dialect",
    "Extension",
    "Prompt",
    "extensions",
]

Prompt = tuple[Message, ...] | str | tuple[int, ...]

Extension = Literal["top_k", "min_p", "repetition_penalty", "json_schema", "regex", "logprobs"]
"""What not every server can do."""

_PATHS: Mapping[HttpMode, str] = {"chat": "chat/completions", "completions": "completions"}
_PARAMS: Mapping[Extension, str] = {"json_schema": "response_format", "regex": "structured_outputs"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is posted.

    Attributes:
        path: Under the address of the server.
        body: As JSON.
    """

    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a kind of server takes.

    Attributes:
        program: What it is called in messages.
        token_ids: It continues prompts that are given as token ids.
        refuses: What it cannot do, or does otherwise than ours, with the reason.
        leaves_out: Fields that it does not know, or knows by another name.
        always: What it is told where the question is silent, so that its own defaults do not hold.
        filters_first: It looks for the likeliest tokens (``top_p``, ``min_p``) before it divides by the temperature.
        greedy_seed: A seed costs a greedy answer nothing.
        schema_field: Where a JSON schema stands.
        fewest_logprobs: It tells none where fewer are asked for.
        known: What it reads is known; else it is asked.
    """

    program: str
    token_ids: bool = True
    refuses: Mapping[Extension, str] = field(default_factory=dict)
    leaves_out: frozenset[str] = frozenset()
    always: Mapping[str, Any] = field(default_factory=dict)
    filters_first: bool = False
    greedy_seed: bool = True
    schema_field: Literal["response_format", "json_schema"] = "response_format"
    fewest_logprobs: int = 0
    known: bool = True

    def ask(self, question: Question, prompt: Prompt, model: str, usual_new_tokens: int | None) -> Asked:
        """What a question is as a request.

        Args:
            question: Of a client.
            prompt: The same as the question's, or its token ids.
            model: What the server calls the model.
            usual_new_tokens: The longest answer where the question does not say; None leaves it to the server in a
                chat. (Texts are continued by 16 tokens where nobody says more.)

        Raises:
            ServeError: 400, the server cannot answer it as ours would.
        """
        self.check(question, prompt)
        messages = tuple(turn for turn in prompt if isinstance(turn, Message))
        logprobs = None if question.logprobs is None else max(question.logprobs, self.fewest_logprobs)
        request = Request(
            token_ids=tuple(part for part in prompt if isinstance(part, int)),
            max_new_tokens=question.max_new_tokens or usual_new_tokens or USUAL_NEW_TOKENS,
            sampling=question.sampling,
            seed=question.seed,
            stop=question.stop,
            logprobs=logprobs,
            constraint=question.constraint,
            messages=messages,
        )
        mode: HttpMode = "chat" if messages else "completions"
        body = dict(self.always) | payload(request, model, mode)
        if isinstance(prompt, str):
            body["prompt"] = prompt
        if messages and question.max_new_tokens is None and usual_new_tokens is None:
            del body["max_tokens"]
        if self.schema_field == "json_schema" and "response_format" in body and question.constraint is not None:
            body["json_schema"] = json.loads(question.constraint.pattern)
            del body["response_format"]
        if question.sampling.temperature == 0 and not self.greedy_seed:
            del body["seed"]
        return Asked(_PATHS[mode], {name: value for name, value in body.items() if name not in self.leaves_out})

    def check(self, question: Question, prompt: Prompt) -> None:
        """Refuses what the server would do otherwise than ours, or not at all.

        Raises:
            ServeError: 400, it is such a question.
        """
        for extension in extensions(question):
            if extension in self.refuses:
                raise refusal(self.program, extension, self.refuses[extension])
        sampling = question.sampling
        if self.filters_first and sampling.temperature not in (0, 1) and (sampling.top_p < 1 or sampling.min_p > 0):
            raise ServeError.invalid(
                f"{self.program} applies top_p and min_p before the temperature, which draws other answers than were "
                "judged; ask with temperature 0 or 1, or without them",
                "temperature",
            )
        if not prompt:
            raise ServeError.invalid("a prompt without turns and without tokens; say something", "prompt")
        if not self.token_ids and not isinstance(prompt, str) and isinstance(prompt[0], int):
            raise ServeError.invalid(f"{self.program} takes no token ids; send the prompt as text", "prompt")


def refusal(program: str, extension: Extension, why: str) -> ServeError:
    """What a client is told that asks for what a server cannot do."""
    param = _PARAMS.get(extension, extension)
    return ServeError.invalid(f"{program} {why}; leave it out, or ask a model of another backend", param)


def extensions(question: Question) -> list[Extension]:
    """What a question asks for that not every server can do."""
    sampling, constraint = question.sampling, question.constraint
    asked: dict[Extension, bool] = {
        "top_k": sampling.top_k is not None,
        "min_p": sampling.min_p > 0,
        "repetition_penalty": sampling.repetition_penalty != 1,
        "json_schema": constraint is not None and constraint.kind == "json_schema",
        "regex": constraint is not None and constraint.kind == "regex",
        "logprobs": question.logprobs is not None,
    }
    return [extension for extension, wanted in asked.items() if wanted]


UNKNOWN = Dialect("the server", known=False)
"""A server that nobody said anything about."""

_TELLS_TEXTS = frozenset({"return_tokens_as_token_ids"})
"""Tells ids instead of texts, and clients want texts."""

VLLM = Dialect(
    "vLLM",
    leaves_out=_TELLS_TEXTS | {"guided_regex", "repeat_penalty", "repeat_last_n"},
    always={"return_token_ids": True},
)

LLAMA_SERVER = Dialect(
    "llama-server",
    refuses={"regex": "takes no regular expression"},
    leaves_out=_TELLS_TEXTS | {"guided_regex", "structured_outputs", "repetition_penalty"},
    # Its own are top_k 40, top_p 0.95 and min_p 0.05, and the temperature last.
    always={
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
    },
    schema_field="json_schema",
    fewest_logprobs=1,
)

LLAMA_CPP_PYTHON = Dialect(
    "llama_cpp.server",
    token_ids=False,
    refuses={
        "regex": "takes no regular expression",
        "json_schema": "takes no JSON schema as OpenAI writes it",
        "repetition_penalty": "looks at the last tokens alone for repetitions",
        "logprobs": "would keep the logits of the whole context for log probabilities",
    },
    leaves_out=_TELLS_TEXTS | {"stream_options"},
    always={"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
    filters_first=True,
)

MLX = Dialect(
    "mlx_lm.server",
    token_ids=False,
    refuses={
        "regex": "ignores regular expressions",
        "json_schema": "ignores JSON schemas",
        "repetition_penalty": "looks at the last tokens alone for repetitions",
        "logprobs": "tells no log probabilities while it streams",
    },
    leaves_out=_TELLS_TEXTS,
    always={"top_k": 0, "min_p": 0.0},
    filters_first=True,
    # It answers what has a seed one by one, and the rest together.
    greedy_seed=False,
)
