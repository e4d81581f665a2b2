"""Keys: what a token is good for. Only digests of tokens are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
from attrs import evolve, field, frozen, validate
from filelock import FileLock

from lmx_kernel.config.file_state import file_state
from lmx_kernel.config.private_file import write_private
from lmx_kernel.errors import InvalidRequestError, LmxError, NotFoundError
from lmx_kernel.types import DEFAULT_TERMS, Terms

FILE, LOCK = "keys.json", "keys.lock"
EVERY_SCOPE = "*"
CONFIG, LOCAL = "config", "local"  # names of the keys that stand in no file
LOOK_S = 1.0  # between two looks at the file
MIN_CHARS, MIN_DISTINCT = 16, 6  # of a key that somebody made up

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_log = structlog.get_logger(__name__)


class KeysDamagedError(LmxError):
    """The file of keys cannot be understood, so no key in it is good for anything."""

    code = "keys_damaged"


class KeysNotSavedError(LmxError):
    """The file of keys cannot be written; it is as it was."""

    code = "keys_not_saved"


@frozen(kw_only=True)
class Key:
    """What the bearer of a token may do.

    :ivar digest: SHA-256 of the token, in hex. Tokens are long and random, so there is nothing to
        guess that a slow hash would protect.
    :ivar terms: on which its requests are served.
    """

    name: str
    scopes: tuple[str, ...]
    digest: str = field(repr=False)
    created: datetime
    terms: Terms = DEFAULT_TERMS

    def may(self, scope: str) -> bool:
        """Return whether this is good for ``scope``; "" stands for any key."""
        return not scope or scope in self.scopes or EVERY_SCOPE in self.scopes


class KeyFile:
    """The keys that were handed out, in ``keys.json`` of LMX's own folder."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE

    def read(self) -> tuple[Key, ...]:
        """Return all keys; none where there is no file.

        :raises KeysDamagedError: cannot be read, or is not what was written.
        """
        try:
            keys = msgspec.json.decode(self.path.read_bytes(), type=tuple[Key, ...])
            for key in keys:
                validate(key.terms)  # which the decoder does not
            return keys
        except FileNotFoundError:
            return ()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise KeysDamagedError(
                f"{FILE} is damaged, and no key in it counts ({why}): repair or delete it"
            ) from error

    def add(self, name: str, scopes: tuple[str, ...], terms: Terms = DEFAULT_TERMS) -> str:
        """Make a key and return its token, which is told only here.

        :raises InvalidRequestError: the name is taken, or cannot be one.
        :raises KeysDamagedError: as :meth:`read`.
        :raises KeysNotSavedError: the disk is full, say.
        """
        if not _NAME.fullmatch(name) or name in (CONFIG, LOCAL):
            raise InvalidRequestError(
                f"a key cannot be called {name!r}: letters, digits and . _ - are fine, up to 64, "
                f"but neither {CONFIG} nor {LOCAL}"
            )
        token = new_token()
        with self._changing():
            keys = self.read()
            if any(key.name == name for key in keys):
                raise InvalidRequestError(f"there is a key {name} already: revoke it first")
            self._write((*keys, make_key(name, scopes, token, terms)))
        return token

    def change(self, name: str, change: Callable[[Terms], Terms]) -> Key:
        """Change the terms of a key, and return it.

        :param change: returns the new terms.
        :raises NotFoundError: there is none of that name.
        :raises KeysDamagedError: as :meth:`read`.
        :raises KeysNotSavedError: as :meth:`add`.
        """
        with self._changing():
            keys = {key.name: key for key in self.read()}
            if name not in keys:
                raise NotFoundError(f"there is no key {name}")
            keys[name] = evolve(keys[name], terms=change(keys[name].terms))
            self._write(tuple(keys.values()))
        return keys[name]

    def revoke(self, name: str) -> tuple[Key, ...]:
        """Forget a key, and return those that are left.

        :raises NotFoundError: there is none of that name.
        :raises KeysDamagedError: as :meth:`read`.
        :raises KeysNotSavedError: as :meth:`add`.
        """
        with self._changing():
            keys = self.read()
            left = tuple(key for key in keys if key.name != name)
            if left == keys:
                raise NotFoundError(f"there is no key {name}")
            self._write(left)
        return left

    def _write(self, keys: tuple[Key, ...]) -> None:
        write_private(self.path, msgspec.json.format(msgspec.json.encode(keys)) + b"\n")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep other processes from changing the file meanwhile."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self.path.with_name(LOCK), mode=0o600):
                yield
        except OSError as error:
            raise KeysNotSavedError(
                f"{self.path} cannot be written ({error.strerror}): no key has changed"
            ) from error


class Keyring:
    """Every key that a running daemon takes: those of the file as it is now, the config's, and the
    local token's, which is for the owner's own commands (:mod:`lmx_kernel.daemon.run_file`).

    :ivar local_token: good for everything; it does not count as a key that somebody set.
    """

    def __init__(self, file: KeyFile, api_key: str = "") -> None:
        self._file = file
        self.local_token = new_token()
        self._local = make_key(LOCAL, (EVERY_SCOPE,), self.local_token)
        self._config = (make_key(CONFIG, (EVERY_SCOPE,), api_key),) if api_key else ()
        self._from_file: tuple[Key, ...] = ()
        self._is_damaged = False
        self._state: object = self  # unlike any that a file can have
        self._looked_s = -LOOK_S

    @property
    def is_empty(self) -> bool:
        """Whether nobody set a key. A damaged file is one with keys that nobody has."""
        self._look()
        return not (self._is_damaged or self._from_file or self._config)

    def find(self, token: str) -> Key | None:
        """Return the key of ``token``, in a time that does not tell how much of it is right."""
        self._look()
        digest, found = _digest(token).encode(), None
        for key in (self._local, *self._config, *self._from_file):
            if hmac.compare_digest(key.digest.encode(), digest):
                found = key
        return found

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        state = file_state(self._file.path)
        if state != self._state:
            self._state = state
            self._read()

    def _read(self) -> None:
        before, self._from_file, self._is_damaged = self._from_file, (), False
        try:
            self._from_file = self._file.read()
        except KeysDamagedError as error:
            self._is_damaged = True
            _log.error("keys_damaged", reason=error.message)
        if self._from_file != before:
            _log.info("keys_changed", names=[key.name for key in self._from_file])


def make_key(name: str, scopes: tuple[str, ...], token: str, terms: Terms = DEFAULT_TERMS) -> Key:
    """Return the key of a token."""
    created = datetime.now(UTC)
    return Key(name=name, scopes=scopes, digest=_digest(token), created=created, terms=terms)


def weakness(token: str) -> str:
    """Return why a key that somebody made up is easily guessed, "" if it is not."""
    if len(token) < MIN_CHARS:
        return f"fewer than {MIN_CHARS} characters"
    if len(set(token)) < MIN_DISTINCT:
        return f"fewer than {MIN_DISTINCT} different characters"
    return ""


def new_token() -> str:
    """Return a token that nobody can guess."""
    return f"lmx-{secrets.token_urlsafe(32)}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
