"""Who may come in: the configured key, then whatever plugins say."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable

from lmx_kernel.errors import LmxError, UnauthorizedError
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.interfaces import HttpRequest

Authorize = Callable[[HttpRequest], LmxError | None]


class UnsafeBindError(Exception):
    """The config would open the server to the network without a key."""


def check_bind(settings: ServerSettings) -> None:
    """Make sure that only this machine can connect, or that a key is asked for.

    :raises UnsafeBindError: neither is so.
    """
    if not settings.api_key and not is_loopback(settings.host):
        raise UnsafeBindError(
            f"server.host is {settings.host}, which other machines can reach: set server.api_key "
            "too, or LMX_SERVER_API_KEY"
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authorizer(api_key: str, ask_plugins: Authorize) -> Authorize:
    """Return what the server asks about each request."""

    def authorize(request: HttpRequest) -> LmxError | None:
        if api_key and not hmac.compare_digest(_key(request).encode(), api_key.encode()):
            return UnauthorizedError("a valid API key is required: send it as a bearer token")
        return ask_plugins(request)

    return authorize


def _key(request: HttpRequest) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
