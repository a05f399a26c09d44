"""What a client is told when it gets no answer."""

from pydantic import BaseModel

__all__ = ["ErrorBody"]


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """As OpenAI's clients read it."""

    error: ErrorDetail
