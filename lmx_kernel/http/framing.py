"""Where a request ends: one that two parsers could read in two ways is refused, since a proxy in
front of the server might disagree (request smuggling).
"""

from __future__ import annotations

from collections.abc import Sequence

import httptools

from lmx_kernel.errors import InvalidRequestError

Headers = Sequence[tuple[bytes, bytes]]

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
    count = len(_values(headers, b"host"))
    if count > 1 or (count == 0 and version == "1.1"):
        return "Exactly one host header is needed."
    return None


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def without_upgrade(parser: httptools.HttpRequestParser, url: bytes, headers: Headers) -> bytes:
    """Return the head of the request that ``parser`` has just read, without its upgrade."""
    wants_close = not parser.should_keep_alive()
    lines = [parser.get_method() + b" " + url + b" HTTP/" + parser.get_http_version().encode()]
    lines += [name + b": " + value for name, value in headers if name not in _UPGRADE]
    if wants_close:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])
