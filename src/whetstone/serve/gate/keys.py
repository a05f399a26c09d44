"""Who asks, by the key that a request brings."""

import hmac
import logging
import re
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from whetstone.errors import UserError
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.key_file import NAME_PATTERN, StoredKey, hashed, new_salt, read_key_file

__all__ = ["ENVIRONMENT_KEYS", "LOCAL", "KeyLimits", "KeyRing", "Principal"]

ENVIRONMENT_KEYS = "WHETSTONE_SERVE_KEYS"

_LEAST_CHARS = 16
_LOOK_AGAIN_S = 1.0
_SCHEME = "bearer "

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may ask for.

    Attributes:
        requests_per_minute: In the long run; None for as many as there are.
        concurrent: Answers that wait or run at once; None for as many as the server takes.
        weight: Its share, where several keys want more than there is.
    """

    requests_per_minute: int | None = None
    concurrent: int | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever asks.

    Attributes:
        name: Of the key.
        limits: What it may ask for.
        admin: It may load adapters and read everybody's feedback.
    """

    name: str
    limits: KeyLimits = KeyLimits()
    admin: bool = False


LOCAL = Principal("local", admin=True)
"""Everybody, on a server without keys."""


@dataclass(frozen=True, slots=True)
class _FileState:
    """What tells whether a file is another one than a moment ago; an atomic replacement changes the inode."""

    modified_ns: int
    size: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "_FileState | None":
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_mtime_ns, found.st_size, found.st_ino)


class KeyRing:
    """The keys of a server. A file of keys is read again when it changes, so that keys can be revoked meanwhile.

    What cannot be read is not trusted more than before: a file that is gone lets nobody in, and one that is broken
    leaves the keys that were read last.
    """

    def __init__(
        self, file: Path | None, fixed: Sequence[StoredKey], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Use :meth:`read`."""
        self._file = file
        self._fixed = tuple(fixed)
        self._clock = clock
        self._looked_s = clock()
        self._state = None if file is None else _FileState.of(file)
        self._keys = self._fixed if file is None else self._read(file)

    @classmethod
    def read(
        cls, file: Path | None, environment: MutableMapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> "KeyRing":
        """Reads keys from a file and from the environment.

        Args:
            file: JSON lines, as ``whet keys new`` writes them.
            environment: Its variable ``WHETSTONE_SERVE_KEYS`` holds keys in the clear (``name:key,name:key``); it is
                taken out, so that programs which the server starts do not inherit it. No key from there is an admin's.
            clock: Seconds that only go forward.

        Raises:
            UserError: The file or the variable is wrong, or a file was given and nobody has a key.
        """
        ring = cls(file, _from_environment(environment.pop(ENVIRONMENT_KEYS, "")), clock)
        if file is not None and not ring._keys:
            raise UserError(f"{file}: holds no keys; 'whet keys new NAME --file {file}' makes one")
        return ring

    @property
    def required(self) -> bool:
        """Whether a request needs a key. It stays so when the last key is revoked."""
        return self._file is not None or bool(self._fixed)

    def identify(self, authorization: str | None) -> Principal:
        """Who asks.

        The key is compared with every one there is, each in a time that does not depend on where they differ.

        Args:
            authorization: The header of that name (``Bearer KEY``, RFC 6750, section 2.1).

        Raises:
            ServeError: 401, the key is missing, unknown or expired.
        """
        if not self.required:
            return LOCAL
        self._look_again()
        if authorization is None or not authorization[: len(_SCHEME)].lower() == _SCHEME:
            raise ServeError(401, "missing_api_key", "a key is needed; send the header 'Authorization: Bearer KEY'")
        found = self._find(authorization[len(_SCHEME) :].strip())
        if found is None:
            raise ServeError(401, "invalid_api_key", "the key is not one of this server; ask its owner for one")
        if found.expired(datetime.now(UTC)):
            raise ServeError(401, "expired_api_key", f"the key '{found.name}' has expired; ask for a new one")
        limits = KeyLimits(found.requests_per_minute, found.concurrent, found.weight)
        return Principal(found.name, limits, found.admin)

    def _find(self, key: str) -> StoredKey | None:
        digests = {salt: hashed(salt, key) for salt in {stored.salt for stored in self._keys}}
        found = None
        for stored in self._keys:
            if hmac.compare_digest(digests[stored.salt], stored.sha256):
                found = stored
        return found

    def _look_again(self) -> None:
        """Reads the file again if it has changed; looks at most once a second."""
        now = self._clock()
        if self._file is None or now - self._looked_s < _LOOK_AGAIN_S:
            return
        self._looked_s = now
        state = _FileState.of(self._file)
        if state == self._state:
            return
        self._state = state
        if state is None:
            self._keys = self._fixed
            _log.warning("%s is gone; no key from it is taken any more", self._file)
            return
        try:
            self._keys = self._read(self._file)
        except UserError as error:
            _log.warning("the keys that were read before stay: %s", error)

    def _read(self, file: Path) -> tuple[StoredKey, ...]:
        keys = read_key_file(file)
        taken = {key.name for key in self._fixed}
        if twice := [key.name for key in keys if key.name in taken]:
            raise UserError(f"{file}: the name '{twice[0]}' is in {ENVIRONMENT_KEYS} as well; take another name")
        return (*self._fixed, *keys)


def _from_environment(value: str) -> list[StoredKey]:
    """Keys in the clear become hashed ones; what is said of a fault shows none of them."""
    salt = new_salt()
    keys: dict[str, StoredKey] = {}
    for number, pair in enumerate(filter(None, map(str.strip, value.split(","))), 1):
        name, colon, key = (part.strip() for part in pair.partition(":"))
        where = f"{ENVIRONMENT_KEYS}: key {number}"
        if not colon or not re.fullmatch(NAME_PATTERN, name):
            raise UserError(f"{where} is not name:key, with a name of letters, digits, '.', '_' and '-'; mend it")
        if len(key) < _LEAST_CHARS:
            raise UserError(f"{where} ('{name}') is shorter than {_LEAST_CHARS} characters; 'whet keys new' makes keys")
        if name in keys:
            raise UserError(f"{where} has the name '{name}' of another one; take another name")
        keys[name] = StoredKey(name=name, sha256=hashed(salt, key), salt=salt)
    return list(keys.values())
