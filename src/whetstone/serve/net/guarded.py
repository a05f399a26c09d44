"""All that a request passes before the application sees it, in the one right order."""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from whetstone.serve.net.body_limit import BodyLimit
from whetstone.serve.net.host_check import HostCheck
from whetstone.serve.net.security_headers import SecurityHeaders
from whetstone.serve_section import Limits

__all__ = ["guarded"]


def guarded(
    app: ASGIApp,
    limits: Limits,
    *,
    only_loopback: bool,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
) -> ASGIApp:
    """An application behind its guards.

    Args:
        app: What is asked.
        limits: Of bodies.
        only_loopback: Take only names that mean this machine, and ``hosts``.
        hosts: More names, without a port.
        origins: Web pages of other sites that may ask; their browsers are told so.
    """
    # As browsers write them.
    origins = tuple(origin.lower().rstrip("/") for origin in origins)
    app = HostCheck(BodyLimit(app, limits), only_loopback=only_loopback, hosts=hosts, origins=origins)
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("authorization", "content-type", "x-request-id", "x-whetstone-deadline-s"),
            expose_headers=("x-request-id", "x-whetstone-backend", "x-whetstone-cache", "retry-after"),
        )
    return SecurityHeaders(app)
