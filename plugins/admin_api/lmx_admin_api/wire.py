"""Between JSON and the classes of :mod:`lmx_admin_api.schema`."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
import falcon
import msgspec
from falcon.asgi import Request, Response

from lmx_kernel.errors import InvalidRequestError, LmxError, PayloadTooLargeError

T = TypeVar("T")
MAX_BODY_BYTES = 64 * 1024
_MISSING = "Object missing required field "


async def read_body(req: Request, cls: Any) -> Any:
    """Return the body as a ``cls``; it is JSON whatever its content type says.

    :raises InvalidRequestError: it is not; ``param`` names the field where there is one.
    :raises PayloadTooLargeError: no request here needs as much.
    """
    data = await req.stream.read()
    if len(data) > MAX_BODY_BYTES:
        raise PayloadTooLargeError(f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        return _convert(msgspec.json.decode(data), cls)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None


def read_query(req: Request, cls: type[T]) -> T:
    """Return the query as a ``cls``.

    :raises InvalidRequestError: it is none; ``param`` names the parameter.
    """
    found: T = _convert(req.params, cls, strict=False)
    return found


def send(resp: Response, value: Any, status: int = 200) -> None:
    """Answer with ``value``, as JSON."""
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(value)


def error_body(error: LmxError) -> dict[str, dict[str, str | None]]:
    """Return the body that tells a client of ``error``."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.param,
            "code": error.code,
        }
    }


def _convert(value: Any, cls: Any, *, strict: bool = True) -> Any:
    if attrs.has(cls) and isinstance(value, dict):
        known = attrs.fields_dict(cls)
        for name in value.keys() - known:
            raise InvalidRequestError(
                f"{name[:64]}: unknown; there are: {', '.join(known) or 'none'}", param=name[:64]
            )
    try:
        return msgspec.convert(value, cls, strict=strict)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None


def _wrong_field(problem: str) -> InvalidRequestError:
    what, _, place = problem.partition(" - at ")
    path = place.strip("`").removeprefix("$").removeprefix(".")
    if what.startswith(_MISSING):
        name = what.removeprefix(_MISSING).strip("`")
        path, what = f"{path}.{name}".lstrip("."), "this field is required"
    return InvalidRequestError(f"{path or 'body'}: {what[:200]}", param=path or None)
