"""Where a request ends: nothing that two parsers could read in two ways is let in."""

from __future__ import annotations

from collections.abc import Iterable

import httptools

from lmx_kernel.errors import InvalidRequestError

Headers = Iterable[tuple[bytes, bytes]]

_UPGRADE = (b"connection", b"upgrade", b"http2-settings")


def check_framing(
    parser: httptools.HttpRequestParser, headers: Headers
) -> InvalidRequestError | None:
    """Return what is wrong with a request's framing, None if nothing is."""
    hosts, lengths, codings = 0, 0, []
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    http_version = parser.get_http_version()
    if http_version not in ("1.0", "1.1") or parser.get_method() == b"CONNECT":
        return InvalidRequestError("This server speaks HTTP/1.1, and is no proxy.")
    if codings and (http_version == "1.0" or lengths or codings != [b"chunked"]):
        return InvalidRequestError("The only transfer encoding is chunked, without a length.")
    if lengths > 1:
        return InvalidRequestError("More than one content-length.")
    if hosts > 1 or (hosts == 0 and http_version == "1.1"):
        return InvalidRequestError("Exactly one host header is needed.")
    return None


def without_upgrade(parser: httptools.HttpRequestParser, url: bytes, headers: Headers) -> bytes:
    """Return the head of the request that ``parser`` has just read, without its upgrade."""
    wants_close = not parser.should_keep_alive()
    lines = [parser.get_method() + b" " + url + b" HTTP/" + parser.get_http_version().encode()]
    lines += [name + b": " + value for name, value in headers if name not in _UPGRADE]
    if wants_close:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])
