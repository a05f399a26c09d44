"""What every response says to a browser, and the id of its request.

An API has nothing to show, to run, to frame or to keep, so that is what it says. Where a handler says something else,
that counts.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whetstone.serve.net.request_id import HEADER, set_request_id

__all__ = ["SECURITY_HEADERS", "SecurityHeaders"]

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


class SecurityHeaders:
    """Sets the headers of responses, and gives each request its id (:mod:`whetstone.serve.net.request_id`)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = set_request_id(scope, scope["headers"]).encode()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                said = {name for name, _ in headers}
                headers += [one for one in SECURITY_HEADERS if one[0] not in said]
                if HEADER not in said:
                    headers.append((HEADER, request_id))
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_with_headers)
