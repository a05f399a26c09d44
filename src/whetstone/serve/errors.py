"""The one exception of the server: what a client is told, in the shape that OpenAI's clients read."""

from typing import Any

__all__ = ["ServeError"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_answer_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "unavailable_error",
    504: "timeout_error",
}


class ServeError(Exception):
    """A request that is not answered, and why.

    Attributes:
        status: Of HTTP.
        code: The kind of failure in one word for programs, such as ``queue_full``.
        message: One line for people: what is wrong, and the mend.
        param: The field of the request that is wrong.
        retry_after_s: When to ask again; None where that would change nothing.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @classmethod
    def invalid(cls, message: str, param: str | None = None, code: str = "invalid_value") -> "ServeError":
        """The request is wrong, and stays so."""
        return cls(400, code, message, param=param)

    @classmethod
    def unavailable(cls, message: str, retry_after_s: float, code: str = "unavailable") -> "ServeError":
        """Nobody can answer right now."""
        return cls(503, code, message, retry_after_s=retry_after_s)

    @property
    def type(self) -> str:
        """The family of failures, as OpenAI names them."""
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def as_json(self) -> dict[str, Any]:
        """The body of the response, and of an error inside a stream."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """What HTTP asks for beside the body.

        ``Retry-After`` in whole seconds (RFC 9110, section 10.2.3), where there is a use in asking again;
        ``WWW-Authenticate`` where a key is needed (section 15.5.2; RFC 6750, section 3).
        """
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, round(self.retry_after_s)))}
        return {**headers, "WWW-Authenticate": "Bearer"} if self.status == 401 else headers
