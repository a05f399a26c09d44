"""Has a program give judged answers again before anybody else may ask it."""

from collections.abc import AsyncIterator, Callable

from whetstone.data.example import Message
from whetstone.errors import UserError
from whetstone.serve.delegate.dialect import Asked, Dialect
from whetstone.serve.delegate.http_backend import probe_question
from whetstone.serve.delegate.order import Judged, Prepared, PreparedModel
from whetstone.serve.delegate.program import Program
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import ServedModel

__all__ = ["probe_of", "proved"]

Ask = Callable[[Question], AsyncIterator[Piece | Ending]]


async def proved(prepared: Prepared, ask: Ask, *, force: bool) -> dict[str, ServedModel]:
    """The models with all that is proved of them.

    Args:
        prepared: The models.
        ask: Asks the program.
        force: Serve them even if they answer otherwise than they were judged.

    Raises:
        UserError: One of them does, and nobody forces it.
        ServeError: The program broke.
    """
    models = {}
    for model in prepared.models:
        served = model.served
        equal = [await _comes_again(one, served.name, ask) for one in model.judged]
        refusal = _refusal(model, equal, prepared, served.engine)
        if refusal is not None and not force:
            raise UserError(f"{served.ref}: not served: {refusal}; --force serves it all the same, and says so")
        refusals = [said for said in (model.refusal, refusal) if said is not None]
        proof = served.proof.model_copy(
            update={"replayed": len(equal), "equal": sum(equal), "forced": "; ".join(refusals) or None}
        )
        models[served.name] = served.model_copy(update={"proof": proof})
    return models


def probe_of(prepared: Prepared, dialect: Dialect, program: Program) -> Asked:
    """The least question to a program."""
    name = prepared.models[0].served.name
    prompt = prepared.stop_ids[:1] if dialect.token_ids else (Message("user", "Hi"),)
    return dialect.ask(probe_question(name), prompt, program.model(name), 1)


async def _comes_again(judged: Judged, model: str, ask: Ask) -> bool:
    question = Question(model, judged.messages, judged.max_new_tokens, judged.sampling, seed=0)
    said = [piece.text async for piece in ask(question) if isinstance(piece, Piece)]
    return judged.same_prompt and "".join(said).strip() == judged.text


def _refusal(model: PreparedModel, equal: list[bool], prepared: Prepared, engine: str) -> str | None:
    """Why a model may not be served by what it answered."""
    if model.served.proof.judged_at is None:
        return None  # that it was not judged is said already
    if not equal:
        return f"no greedy judged answers are there to compare with what {engine} says"
    if all(equal):
        return None
    first = model.judged[equal.index(False)].example
    said = f"{equal.count(False)} of {len(equal)} judged answers come out otherwise, '{first}' first"
    prompts = sum(not one.same_prompt for one in model.judged)
    rendered = f"; {prompts} prompts have other tokens: template or tokenizer changed" if prompts else ""
    return f"{said}{rendered}; {engine} computes in {prepared.dtype}, judged was torch"
