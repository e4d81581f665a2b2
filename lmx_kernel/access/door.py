"""Authorisation. A request needs an API key whose scopes cover the surface that owns its path;
plugins may refuse it as well.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress

import attrs

from lmx_kernel.access.guesses import WrongKeys
from lmx_kernel.access.keys import Keyring, weakness
from lmx_kernel.access.loopback import is_loopback
from lmx_kernel.errors import ForbiddenError, LmxError, UnauthorizedError
from lmx_kernel.interfaces import NO_KEY, ApiSurface, HttpRequest

# Returns the request with its key and the terms of that; raises LmxError to refuse it.
# Fails closed: if it raises anything else, the request is refused as well.
Authorize = Callable[[HttpRequest], HttpRequest]

UNDECLARED_SCOPE = "admin"  # for surfaces that declare none
ADMIN_PATHS = frozenset({"/health/status"})  # of no surface; shows processes and all models


class UnsafeBindError(Exception):
    """Other machines could use the server without a key, or with one that is easily guessed.

    :ivar key: the key of the section ``server`` that is to be changed.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class WrongKeyError(UnauthorizedError):
    """The request came with a key that is none of this server's.

    :ivar pause_s: for how many seconds the answer is to be held back.
    """

    def __init__(self, pause_s: float) -> None:
        super().__init__("this is no API key of this server")
        self.pause_s = pause_s


def check_bind(host: str, keys: Keyring, api_key: str = "") -> None:
    """Check that a server on ``host`` asks for a good key if other machines can reach it.

    :param host: one that the config has the server listen on.
    :param api_key: the config's ``server.api_key``.
    :raises UnsafeBindError: they can, and there is no key, or ``api_key`` is easily guessed.
    """
    if is_loopback(host):
        return
    reach = f"other machines can reach {host or 'every address of this one'}"
    if keys.is_empty:
        raise UnsafeBindError(
            "host", f"{reach}: make a key with `lmx key add NAME`, or set server.api_key"
        )
    if api_key and (why := weakness(api_key)):
        raise UnsafeBindError(
            "api_key", f"it is easily guessed ({why}), and {reach}: `lmx key add NAME` makes a key"
        )


class Door:
    """Authorises requests.

    Once there is a key, each request needs one with the scope of the surface that answers it.
    Without any key, a server that only this machine can reach asks for none.

    :param is_local: whether only this machine can reach the server.
    :param answering: returns the surface that answers a path, by the headers of the request.
    :param ask_plugins: returns the error with which a plugin refuses a request, or None.
    """

    def __init__(
        self,
        is_local: bool,
        keys: Keyring,
        answering: Callable[[str, Mapping[str, str]], ApiSurface | None],
        ask_plugins: Callable[[HttpRequest], LmxError | None],
    ) -> None:
        self._is_local = is_local
        self._keys = keys
        self._answering = answering
        self._ask_plugins = ask_plugins
        self._wrong_keys = WrongKeys()

    def admit(self, request: HttpRequest) -> HttpRequest:
        """Return the request with its key and the terms of that; with none where none is needed.

        :raises UnauthorizedError: no key.
        :raises WrongKeyError: an unknown one.
        :raises ForbiddenError: the key lacks the scope.
        :raises LmxError: a plugin refuses the request.
        """
        token = token_of(request.headers)
        key, scope = self._keys.find(token), self._scope(request)
        if key is not None:
            if scope != NO_KEY and not key.may(scope):
                raise ForbiddenError(f"this needs a key with the scope {scope}")
        elif not (scope == NO_KEY or (self._is_local and self._keys.is_empty)):
            if token:
                raise WrongKeyError(self._wrong_keys.note(request.client))
            raise UnauthorizedError("a valid API key is required: send it as a bearer token")
        if key is not None:
            request = attrs.evolve(request, key=key.name, terms=key.terms)
        if (refusal := self._ask_plugins(request)) is not None:
            raise refusal
        return request

    def _scope(self, request: HttpRequest) -> str:
        if (surface := self._answering(request.path, request.headers)) is not None:
            return getattr(surface, "scope", UNDECLARED_SCOPE)
        return UNDECLARED_SCOPE if request.path in ADMIN_PATHS else ""


def token_of(headers: Mapping[str, str]) -> str:
    """Return the token that a client sent, "" for none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":  # a browser asked its user; RFC 7617
        with suppress(ValueError):
            return base64.b64decode(token).decode().partition(":")[2]
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
