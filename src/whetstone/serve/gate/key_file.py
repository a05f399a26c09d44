"""The file of keys: who may ask, how much, and until when; the keys themselves are not in it.

A key is 256 random bits, so nobody finds it by trying, however fast a hash is, and one round of SHA-256 keeps it as
safe as a slow hash would: those are for passwords, which people choose. Source: NIST SP 800-63B, section 5.1.2.2 (a
secret of at least 112 bits of entropy is to be hashed with an approved one-way function; the key derivation functions
are for those with less). The salt, one for a file, makes the hashes of two servers say nothing of each other; since it
is the same for all keys of the file, a key that comes in is hashed once and not once for each line.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import AwareDatetime, Field, ValidationError

from whetstone.errors import UserError
from whetstone.files import replacing
from whetstone.section import Count, Section

__all__ = ["NAME_PATTERN", "StoredKey", "changing", "hashed", "make_key", "new_salt", "read_key_file"]

NAME_PATTERN = r"[A-Za-z0-9._-]{1,64}"

_PREFIX = "whet_"
"""What keys begin with, so that programs that look for secrets in code know one when they see it."""
_KEY_BYTES = 32
_SALT_BYTES = 16
_WRITABLE_BY_OTHERS = 0o022
_LOCK_TIMEOUT_S = 10.0

_Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$")]


class StoredKey(Section):
    """One line of the file."""

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    salt: _Hex
    admin: bool = False
    """It may load adapters and read everybody's feedback."""
    requests_per_minute: Count | None = None
    concurrent: Count | None = None
    """Answers that it may have waiting or running at once."""
    weight: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Its share of the server, where several keys want more than there is."""
    expires: AwareDatetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= self.expires

    def as_row(self) -> dict[str, Any]:
        """The line, without the hash and the salt: what may be shown."""
        return {**self.model_dump(mode="json", exclude={"sha256", "salt"}), "expired": self.expired(datetime.now(UTC))}


def new_salt() -> str:
    """A random salt, in hexadecimal digits."""
    return secrets.token_hex(_SALT_BYTES)


def hashed(salt: str, key: str) -> str:
    """The SHA-256 of salt and key, in hexadecimal digits."""
    return hashlib.sha256(bytes.fromhex(salt) + key.encode("utf-8", "surrogatepass")).hexdigest()


def make_key() -> str:
    """A new key, from the random source of the operating system."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def read_key_file(path: Path) -> list[StoredKey]:
    """Reads the keys.

    Raises:
        UserError: The file cannot be read, others could have written it, or a line is wrong.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; 'whet keys new NAME --file {path}' makes it") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{path}: cannot be read ({reason}); give a file of keys") from None
    # Permissions mean this on POSIX alone; who can write the file can let himself in.
    if os.name == "posix" and mode & _WRITABLE_BY_OTHERS:
        raise UserError(f"{path}: others may write it, and so make keys of their own; run 'chmod 600 {path}'")
    keys: dict[str, StoredKey] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            key = _parsed(f"{path}:{number}", line)
            if key.name in keys:
                raise UserError(f"{path}:{number}: a second key of the name '{key.name}'; delete one of the lines")
            keys[key.name] = key
    return list(keys.values())


def _parsed(where: str, line: str) -> StoredKey:
    try:
        return StoredKey.model_validate_json(line)
    except ValidationError as error:
        # Without the input, which may be a key that somebody wrote here in the clear.
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(map(str, fault["loc"]))
        said = f"{place}: {fault['msg']}" if place else fault["msg"]
        raise UserError(f"{where}: {said}; mend the line, or make the key again with 'whet keys new'") from None


@contextlib.contextmanager
def changing(path: Path) -> Iterator[list[StoredKey]]:
    """Gives the keys of a file, to change; they are written when the block ends well.

    Nobody else changes them meanwhile, and a server that reads sees the old file or the new one. The file is for its
    owner alone (mode 0600).

    Raises:
        UserError: The file cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_TIMEOUT_S, mode=0o600):
            keys = read_key_file(path) if path.exists() else []
            yield keys
            _write(path, keys)
    except Timeout:
        raise UserError(f"{path}: another command is changing it; try again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give a file that may be written") from error


def _write(path: Path, keys: Sequence[StoredKey]) -> None:
    with replacing(path) as partial:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as text:
            text.writelines(f"{key.model_dump_json()}\n" for key in keys)
