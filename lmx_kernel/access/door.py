"""Who may come in: the bearer of a key that is good for the path, if no plugin objects."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache

import attrs

from lmx_kernel.access.keys import Key, Keyring
from lmx_kernel.errors import ForbiddenError, LmxError, UnauthorizedError
from lmx_kernel.interfaces import ApiSurface, HttpRequest

# Returns the name of the key that lets a request in, "" where none is needed; raises to refuse.
Authorize = Callable[[HttpRequest], str]

UNDECLARED_SCOPE = "admin"  # of a surface that does not say what is needed


class UnsafeBindError(Exception):
    """The config would open the server to the network without a key."""


def check_bind(host: str, keys: Keyring) -> None:
    """Make sure that only this machine can connect, or that a key is asked for.

    :raises UnsafeBindError: neither is so.
    """
    if keys.is_empty and not is_loopback(host):
        raise UnsafeBindError(
            f"server.host is {host}, which other machines can reach: make a key with "
            "`lmx key add NAME`, or set server.api_key (LMX_SERVER_API_KEY)"
        )


@lru_cache(maxsize=64)  # asked for each request, mostly of the same few names
def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Door:
    """Lets requests in, or not.

    As soon as anybody set a key, each path needs one that is good for the scope of the surface that
    owns it. Before that, a server that only this machine can reach is open.

    :param owner: returns the surface that a path belongs to.
    :param ask_plugins: returns why they refuse a request, or None.
    """

    def __init__(
        self,
        host: str,
        keys: Keyring,
        owner: Callable[[str], ApiSurface | None],
        ask_plugins: Callable[[HttpRequest], LmxError | None],
    ) -> None:
        self._is_local = is_loopback(host)
        self._keys = keys
        self._owner = owner
        self._ask_plugins = ask_plugins

    def admit(self, request: HttpRequest) -> str:
        """Return the name of the request's key, "" where none is needed.

        :raises LmxError: it may not come in.
        """
        key = self._keys.find(token_of(request.headers))
        if key is not None:
            self._check_scope(key, request.path)
        elif not (self._is_local and self._keys.is_empty):
            raise UnauthorizedError("a valid API key is required: send it as a bearer token")
        if key is not None:
            request = attrs.evolve(request, key=key.name)
        if (refusal := self._ask_plugins(request)) is not None:
            raise refusal
        return request.key

    def _check_scope(self, key: Key, path: str) -> None:
        surface = self._owner(path)
        scope = getattr(surface, "scope", UNDECLARED_SCOPE) if surface else ""
        if not key.may(scope):
            raise ForbiddenError(f"this needs a key with the scope {scope}")


def token_of(headers: Mapping[str, str]) -> str:
    """Return the token that a client shows, "" for none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":  # a browser's own way to ask its user; RFC 7617
        with suppress(ValueError):
            return base64.b64decode(token).decode().partition(":")[2]
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
