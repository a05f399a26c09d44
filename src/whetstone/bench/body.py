"""What a server sends back, read with the time of each piece.

Notable: the first token is the first piece that has text, not the first event: servers open with one that names only
the role. What a model thinks aloud is text here, because the server's count of tokens holds it.
"""

from typing import Any

from pydantic import BaseModel, ValidationError

from whetstone.engine.http_wire import Count, EventParser, error_message

__all__ = ["BodyError", "StreamedBody", "read_whole"]

_DONE = "[DONE]"
_CLIP_CHARACTERS = 200


class BodyError(Exception):
    """The body is no answer.

    Attributes:
        status: What the row of the request says.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Said(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    def has_text(self) -> bool:
        return bool(self.content or self.reasoning_content or self.reasoning)


class _Choice(BaseModel):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None

    def has_text(self) -> bool:
        return bool(self.text or (self.delta is not None and self.delta.has_text()))


class _Event(BaseModel):
    choices: list[_Choice] | None = None
    usage: Count | None = None
    error: Any = None


class StreamedBody:
    """A body of server-sent events, as far as it has come.

    Attributes:
        piece_s: When each piece with text came.
        count: The server's own count of tokens, the latest it gave; empty where it gave none.
        ended: The server has said that the answer is whole.
        done: It has said that nothing more comes.
    """

    def __init__(self) -> None:
        self.piece_s: list[float] = []
        self.count = Count()
        self.ended = False
        self.done = False
        self._parser = EventParser()

    def take(self, part: bytes, now_s: float) -> None:
        """Reads on.

        Args:
            part: What came, cut anywhere.
            now_s: When it came; all pieces in it came then.

        Raises:
            BodyError: The server reports an error, or sends what is no piece of an answer.
        """
        try:
            events = self._parser.feed(part)
        except ValueError as error:
            raise BodyError("malformed", str(error)) from None
        for event in events:
            self._read(event, now_s)

    def close(self, now_s: float) -> None:
        """Nothing more comes: reads the event that only lacked its blank line.

        Raises:
            BodyError: As of :meth:`take`; or the answer is not whole.
        """
        for event in self._parser.end():
            self._read(event, now_s)
        if not self.ended:
            raise BodyError("truncated", "the stream ended before the answer had")

    def _read(self, event: str, now_s: float) -> None:
        if event.strip() == _DONE:
            self.ended = self.done = True
            return
        read = _parsed(event)
        if read.usage is not None:
            self.count = read.usage
        for choice in read.choices or ():
            if choice.has_text():
                self.piece_s.append(now_s)
            self.ended = self.ended or choice.finish_reason is not None


def read_whole(body: bytes) -> Count:
    """Reads an answer that came in one piece; gives the server's count of tokens.

    Raises:
        BodyError: It is no answer.
    """
    read = _parsed(body)
    if not read.choices:
        raise BodyError("malformed", f"no answer: {_clip(body)}")
    return read.usage or Count()


def _parsed(event: str | bytes) -> _Event:
    try:
        read = _Event.model_validate_json(event)
    except ValidationError:
        raise BodyError("malformed", f"no piece of an answer: {_clip(event)}") from None
    if read.error is not None:
        raise BodyError("error in stream", error_message({"error": read.error})[1])
    return read


def _clip(event: str | bytes) -> str:
    text = event.decode("utf-8", "replace") if isinstance(event, bytes) else event
    return text[:_CLIP_CHARACTERS]
