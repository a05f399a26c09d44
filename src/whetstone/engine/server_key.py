"""Which key a server gets."""

from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["key_for"]

_KEY = "WHETSTONE_API_KEY"
_OPENAI_KEY, _OPENAI = "OPENAI_API_KEY", "api.openai.com"


def key_for(url: str, environment: Mapping[str, str]) -> str | None:
    """``WHETSTONE_API_KEY``; the key of OpenAI goes to nobody but OpenAI."""
    key = environment.get(_KEY)
    if not key and urlsplit(url).hostname == _OPENAI:
        key = environment.get(_OPENAI_KEY)
    return key
