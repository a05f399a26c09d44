"""What all pages share: head, colours, style, the one script that a page may run, header and footer."""

import base64
import functools
import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from whetstone.report import format as written
from whetstone.report.palette import DARK, LIGHT

__all__ = ["render"]


def render(template: str, *, scripts: Sequence[str] = ("page.js",), **values: Any) -> str:
    """Renders a page.

    Args:
        template: Its name.
        scripts: The files that its one script is made of.
        values: What it shows, beside what every page knows: ``written`` (:mod:`whetstone.report.format`), the colours
            and the script.
    """
    templates = importlib.resources.files("whetstone.report") / "templates"
    script = "".join((templates / name).read_text(encoding="utf-8") for name in scripts)
    return (
        _environment()
        .get_template(template)
        .render(
            dark=DARK,
            light=LIGHT,
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            written=written,
            **values,
        )
    )


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("whetstone.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
