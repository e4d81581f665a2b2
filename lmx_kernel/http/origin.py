"""Which web pages may talk to the server: none but its own, and those that the config names.

A browser sends ``Origin`` with whatever a page asks for, and ``Host`` as the page's address has it.
A page of somebody else could otherwise use a server that only this machine can reach, by a simple
form or by a name that it points to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from lmx_kernel.access.loopback import is_loopback
from lmx_kernel.errors import ForbiddenError
from lmx_kernel.http.settings import ServerSettings

ANY = "*"
MAX_AGE_S = 600
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

Headers = list[tuple[bytes, bytes]]


class Origins:
    """Checks the two headers, and answers browsers that ask first (CORS, Fetch standard)."""

    def __init__(self, settings: ServerSettings) -> None:
        self._is_local = settings.is_local
        self._hosts = {host.casefold() for host in settings.allowed_hosts}
        self._origins = {origin.casefold() for origin in settings.allowed_origins}

    def check(self, headers: Mapping[str, str]) -> Headers:
        """Return the headers that let the page see the answer.

        :raises ForbiddenError: the page may not ask.
        """
        host, origin = headers.get("host", "").casefold(), headers.get("origin")
        if not self._is_known(host):
            raise ForbiddenError("this server is not called that; see server.allowed_hosts")
        if origin is None or self._is_own(origin.casefold(), host):
            return []
        if ANY not in self._origins and origin.casefold() not in self._origins:
            raise ForbiddenError("pages of this origin may not ask; see server.allowed_origins")
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"x-request-id, retry-after, x-should-retry"),
            (b"vary", b"origin"),
        ]

    def _is_known(self, host: str) -> bool:
        name = _name(host)
        if name in self._hosts:
            return True
        return is_loopback(name) if self._is_local else not self._hosts or is_loopback(name)

    def _is_own(self, origin: str, host: str) -> bool:
        return origin in (f"http://{host}", f"https://{host}")


def preflight(headers: Mapping[str, str]) -> Headers:
    """Return the headers that answer a browser's question whether it may send a request."""
    wanted = headers.get("access-control-request-headers", "")
    return [
        (b"access-control-allow-methods", METHODS.encode()),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-max-age", b"%d" % MAX_AGE_S),
        (b"content-length", b"0"),
    ]


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether this is a browser that asks before it sends the real request."""
    return method == "OPTIONS" and "access-control-request-method" in headers


def _name(host: str) -> str:
    """Return a host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
