"""Which names a server answers to, and which web pages may ask it.

A page of any site can have a browser send requests to a server on the same machine. Two guards keep it from a server
that asks for no key. *DNS rebinding*: the site's own name comes to mean 127.0.0.1, and the page is of the same origin
as the server; so a server on loopback takes only names that mean loopback. *Cross-site requests*: a form, or a fetch
without permission; so a body must be JSON, which takes a permission that is not given, and a request that a browser
says to come from another origin is refused, by the rules of ``CrossOriginProtection`` of Go 1.25 (net/http): the header
``Sec-Fetch-Site`` decides where it is sent, else ``Origin`` against ``Host``; who sends neither is no browser.
"""

import ipaddress
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from whetstone.serve.errors import ServeError
from whetstone.serve.net.refusal import refuse

__all__ = ["HostCheck", "is_loopback_name"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class HostCheck:
    """Refuses requests to strange hosts, from strange origins, and with bodies that are not JSON."""

    def __init__(
        self, app: ASGIApp, *, only_loopback: bool, hosts: Collection[str] = (), origins: Collection[str] = ()
    ) -> None:
        """Wraps an application.

        Args:
            app: What is asked.
            only_loopback: Take only names that mean this machine, and ``hosts``.
            hosts: More names, without a port.
            origins: Web pages that may ask, such as ``https://example.com``.
        """
        self._app = app
        self._only_loopback = only_loopback
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it without reading its body."""
        if scope["type"] == "http":
            error = self._wrong(scope)
            if error is not None:
                await refuse(send, error)
                return
        await self._app(scope, receive, send)

    def _wrong(self, scope: Scope) -> ServeError | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        method = scope["method"]
        hosts = _all(headers, b"host")
        if len(hosts) > 1 or (not hosts and scope["http_version"] != "1.0"):
            return ServeError(400, "invalid_host", "a request has one Host header; send it once")
        host = hosts[0].lower() if hosts else ""
        if self._only_loopback and not self._is_ours(host):
            return ServeError(
                403,
                "host_not_allowed",
                "this server has no keys and answers only to names of its own machine, such as localhost; "
                "start it with --allow-host NAME, or with --keys",
            )
        if method not in _SAFE_METHODS and self._is_cross_site(headers, host):
            return ServeError(
                403,
                "origin_not_allowed",
                "web pages of other sites may not ask this server; start it with --allow-origin ORIGIN",
            )
        if method in _WITH_BODY and not _is_json(headers):
            return ServeError(
                415, "unsupported_media_type", "the body must be JSON; send 'Content-Type: application/json'"
            )
        return None

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host)
        return is_loopback_name(name) or name in self._hosts

    def _is_cross_site(self, headers: Iterable[tuple[bytes, bytes]], host: str) -> bool:
        origins = [origin.lower() for origin in _all(headers, b"origin")]
        if origins and all(origin in self._origins for origin in origins):
            return False
        fetch_site = _all(headers, b"sec-fetch-site")
        if fetch_site:
            return any(site not in ("same-origin", "none") for site in fetch_site)
        return any(_authority(origin) != host for origin in origins)


def is_loopback_name(name: str) -> bool:
    """Whether a name of a host means the machine itself, whatever anybody's name server says.

    ``localhost`` and everything below it is never asked for (RFC 6761, section 6.3).
    """
    name = name.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and not port.endswith("]") else host


def _authority(origin: str) -> str:
    """Host and port of an origin; ``null`` and what is none have none that a Host header could be."""
    try:
        return urlsplit(origin).netloc or "null"
    except ValueError:
        return "null"


def _is_json(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    kinds = _all(headers, b"content-type")
    return len(kinds) == 1 and kinds[0].partition(";")[0].strip().lower() == "application/json"


def _all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]
