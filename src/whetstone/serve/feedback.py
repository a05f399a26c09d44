"""``POST /v1/feedback``: what somebody thinks of an answer."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from whetstone.serve.errors import ServeError
from whetstone.serve.feedback_store import FeedbackStore, Rating
from whetstone.serve.gate.keys import Principal

__all__ = ["feedback_router"]

_LONGEST_CORRECTION = 200_000
_LONGEST_COMMENT = 10_000
_LONGEST_ID = 200


class _Feedback(BaseModel):
    """The body of the request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    answer_id: Annotated[str, Field(min_length=1, max_length=_LONGEST_ID)]
    rating: Literal["good", "bad", "correction"]
    choice: Annotated[int, Field(ge=0, lt=2**31)] = 0
    correction: Annotated[str | None, Field(max_length=_LONGEST_CORRECTION)] = None
    comment: Annotated[str | None, Field(max_length=_LONGEST_COMMENT)] = None

    @field_validator("correction", "comment")
    @classmethod
    def _is_text(cls, text: str | None) -> str | None:
        if text is not None and "\0" in text:
            raise ValueError("must not hold the character U+0000")
        return text


def feedback_router(store: FeedbackStore, identify: Callable[[Request], Principal]) -> APIRouter:
    """The route that takes feedback.

    Args:
        store: Keeps it.
        identify: Who sends a request; raises the ServeError of one that has no key.
    """
    router = APIRouter()

    @router.post("/v1/feedback")
    async def take(request: Request) -> dict[str, Any]:
        principal = identify(request)
        rating = _read(await request.body())
        number = await store.rate(principal, rating)
        about = {"answer_id": rating.answer_id, "choice": rating.choice, "rating": rating.rating}
        return {"id": f"feedback-{number}", "object": "feedback", **about}

    return router


def _read(body: bytes) -> Rating:
    try:
        said = _Feedback.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        param = ".".join(map(str, fault["loc"])) or None
        raise ServeError.invalid(f"{param or 'the body'}: {fault['msg']}", param) from None
    blank = said.correction is None or not said.correction.strip()
    if said.rating == "correction" and blank:
        raise ServeError.invalid("a correction without text; say what the answer should have been", "correction")
    if said.rating == "good" and said.correction is not None:
        raise ServeError.invalid(
            "a good answer needs no correction; rate it 'correction', or leave it out", "correction"
        )
    return Rating(said.answer_id, said.rating, said.choice, None if blank else said.correction, said.comment)
