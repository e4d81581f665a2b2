"""Where a request ends: one that two parsers could read in two ways is refused, since a proxy in
front of the server might disagree (request smuggling).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import httptools

from lmx_kernel.errors import InvalidRequestError

MAX_PORT = 65535

Headers = Sequence[tuple[bytes, bytes]]

_HOST = re.compile(
    rb"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|[\w.-]{1,255})(?::(?P<port>\d{0,5}))?", re.ASCII
)
_UPGRADE = (b"connection", b"upgrade", b"http2-settings")


def check_framing(
    parser: httptools.HttpRequestParser, headers: Headers
) -> InvalidRequestError | None:
    """Return what is wrong with a request's framing (RFC 9112, 3.2 and 6.1), None if nothing is."""
    version, method = parser.get_http_version(), parser.get_method()
    problem = (
        _wrong_protocol(version, method)
        or _wrong_length(version, headers)
        or _wrong_host(version, headers)
    )
    return InvalidRequestError(problem) if problem else None


def _wrong_protocol(version: str, method: bytes) -> str | None:
    if version not in ("1.0", "1.1") or method == b"CONNECT":
        return "This server speaks HTTP/1.1, and is no proxy."
    return None


def _wrong_length(version: str, headers: Headers) -> str | None:
    lengths = _values(headers, b"content-length")
    codings = _values(headers, b"transfer-encoding")
    is_chunked = [coding.strip().lower() for coding in codings] == [b"chunked"]
    if codings and (version == "1.0" or lengths or not is_chunked):
        return "The only transfer encoding is chunked, without a length."
    return "More than one content-length." if len(lengths) > 1 else None


def _wrong_host(version: str, headers: Headers) -> str | None:
    hosts = _values(headers, b"host")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return "Exactly one host header is needed."
    if hosts and not _is_host(hosts[0].strip()):
        return "The host header must be a name or an address, with or without a port."
    return None


def _is_host(value: bytes) -> bool:
    """Return whether this is a name or an IP literal with an optional port (RFC 9110, 7.2)."""
    found = _HOST.fullmatch(value)
    if found is None or int(found["port"] or 0) > MAX_PORT:
        return False
    try:
        return found["ipv6"] is None or bool(ipaddress.IPv6Address(found["ipv6"].decode()))
    except ValueError:
        return False


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def asks_for_websocket(parser: httptools.HttpRequestParser, headers: Headers) -> bool:
    """Return whether a request that asks for an upgrade is a websocket's handshake (RFC 6455,
    4.1).
    """
    names = [name.strip().lower() for name in _values(headers, b"upgrade")]
    is_get = parser.get_method() == b"GET" and parser.get_http_version() == "1.1"
    return is_get and names == [b"websocket"]


def without_upgrade(parser: httptools.HttpRequestParser, url: bytes, headers: Headers) -> bytes:
    """Return the head of the request that ``parser`` has just read, without its upgrade."""
    wants_close = not parser.should_keep_alive()
    lines = [parser.get_method() + b" " + url + b" HTTP/" + parser.get_http_version().encode()]
    lines += [name + b": " + value for name, value in headers if name not in _UPGRADE]
    if wants_close:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])
