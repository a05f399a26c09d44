"""What is said between the server's process and the one that prepares models for a program, one JSON object a line."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from whetstone.data.example import Message
from whetstone.engine.api import Sampling
from whetstone.serve.served_model import ServedModel
from whetstone.serve.worker.protocol import Lost, Opening, Refused, Stage

__all__ = [
    "Form",
    "FromPreparer",
    "Judged",
    "Prepare",
    "Prepared",
    "PreparedModel",
    "Render",
    "Rendered",
    "ToPreparer",
    "read_from_preparer",
    "read_to_preparer",
]

Form = Literal["folders", "gguf", "mlx"]
"""What a program reads: model and adapter folders as they are; one GGUF file; one folder as mlx-lm needs it."""

PromptOfWire = tuple[Message, ...] | str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepare:
    """The first message: makes models ready for a program.

    Attributes:
        opening: Which.
        form: What the program reads.
        folder: Where what has to be made is written.
        engine: What computes, as the card of a model says it.
        same_tokens: The program renders prompts itself; one that it would render otherwise is refused.
    """

    opening: Opening
    form: Form
    folder: str
    engine: str
    same_tokens: bool
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True, slots=True)
class Render:
    """A prompt whose token ids are wanted."""

    id: int
    model: str
    prompt: PromptOfWire
    kind: Literal["render"] = "render"


@dataclass(frozen=True, slots=True)
class Judged:
    """A judged answer that has to come again.

    Attributes:
        example: The id of the example.
        messages: The question.
        max_new_tokens: The longest answer.
        sampling: How its tokens were chosen.
        text: The answer.
        same_prompt: The prompt has the tokens that it had then.
    """

    example: str
    messages: tuple[Message, ...]
    max_new_tokens: int
    sampling: Sampling
    text: str
    same_prompt: bool


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A name that the program is to answer to.

    Attributes:
        served: What is told of it; its proof does not know the program's answers yet.
        adapter: The folder of the adapter on the weights.
        trained_nf4: The adapter was trained on weights in NF4.
        refusal: Why it may not be served by its verdict; None where nothing stands against it so far.
        judged: Answers that have to come again.
    """

    served: ServedModel
    adapter: str | None = None
    trained_nf4: bool = False
    refusal: str | None = None
    judged: tuple[Judged, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """The models are there.

    Attributes:
        path: The folder or file of the weights.
        tokenizer: The folder of the tokenizer.
        template: A file with the chat template.
        dtype: Of the weights.
        context_tokens: The longest prompt and answer together.
        stop_ids: The tokens that end an answer.
        models: By the names that requests call them.
    """

    path: str
    tokenizer: str
    template: str
    dtype: str
    context_tokens: int
    stop_ids: tuple[int, ...]
    models: tuple[PreparedModel, ...]
    kind: Literal["prepared"] = "prepared"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The token ids of a prompt, or why there are none: fields of :class:`whetstone.serve.errors.ServeError`."""

    id: int
    token_ids: tuple[int, ...] = ()
    error: str | None = None
    param: str | None = None
    code: str = "invalid_value"
    kind: Literal["rendered"] = "rendered"


ToPreparer = Prepare | Render
FromPreparer = Stage | Prepared | Refused | Lost | Rendered

_TO: TypeAdapter[ToPreparer] = TypeAdapter(Annotated[ToPreparer, Field(discriminator="kind")])
_FROM: TypeAdapter[FromPreparer] = TypeAdapter(Annotated[FromPreparer, Field(discriminator="kind")])


def read_to_preparer(line: bytes) -> ToPreparer:
    """The message of a line.

    Raises:
        ValueError: It is none.
    """
    return _TO.validate_json(line)


def read_from_preparer(line: bytes) -> FromPreparer:
    """The message of a line.

    Raises:
        ValueError: It is none.
    """
    return _FROM.validate_json(line)
