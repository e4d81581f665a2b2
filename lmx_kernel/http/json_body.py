"""JSON bodies: bytes to attrs classes, and what is wrong with them; the same for all dialects."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import falcon
import msgspec
from falcon.asgi import Request, Response

from lmx_kernel.dialect.refused import find_misplaced
from lmx_kernel.errors import InvalidRequestError

T = TypeVar("T")

# Building objects blocks the loop, in threads as well: this keeps it below 50 ms. Text counts too,
# but text with that much punctuation fits no context.
MAX_OPENERS = 32_768
MAX_COMMAS = 262_144
_BOM = b"\xef\xbb\xbf"
_PROBLEM = re.compile(
    r"(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>[^`]*?)(?:\[\.{3}\])*`)?", re.DOTALL
)
_MISSING = re.compile(r"Object missing required field `(\w+)`")


async def read_body(req: Request, cls: type[T]) -> T:
    """Return the body as a ``cls``; it is JSON whatever its content type says.

    :raises InvalidRequestError: it is not; ``param`` names the field where there is one.
    """
    return parse(await req.stream.read(), cls)


def parse(data: bytes, cls: type[T]) -> T:
    """Return ``data`` as a ``cls``.

    :raises InvalidRequestError: it is not; ``param`` names the field where there is one. A body of
        another dialect is told where it belongs, rather than what it lacks.
    """
    data = data.removeprefix(_BOM)
    if data.count(b"{") + data.count(b"[") > MAX_OPENERS or data.count(b",") > MAX_COMMAS:
        raise InvalidRequestError("the body has too many parts: braces, brackets or commas")
    try:
        return msgspec.json.decode(data, type=cls)
    except msgspec.ValidationError as error:
        raise find_misplaced(data, cls) or wrong_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply") from None


def send(resp: Response, value: Any, status: int = 200) -> None:
    """Answer with ``value``, as JSON."""
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(value)


def wrong_field(problem: str) -> InvalidRequestError:
    """Return the error for what msgspec found wrong, with the field as ``param``."""
    match = _PROBLEM.fullmatch(problem)
    assert match is not None
    what, path = match["what"][:200], match["path"] or ""
    if missing := _MISSING.fullmatch(what):
        path, what = f"{path}.{missing[1]}".lstrip("."), "this field is required"
    return InvalidRequestError(f"{path or 'body'}: {what}", param=path or None)
