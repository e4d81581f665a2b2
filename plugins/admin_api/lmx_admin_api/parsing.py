"""Between JSON and the classes of :mod:`lmx_admin_api.schema`."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
import msgspec
from falcon.asgi import Request

from lmx_kernel.errors import InvalidRequestError, PayloadTooLargeError
from lmx_kernel.http.json_body import parse, wrong_field

T = TypeVar("T")
MAX_BODY_BYTES = 64 * 1024


async def read_body(req: Request, cls: Any, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """Return the body as a ``cls``; it is JSON whatever its content type says.

    :raises InvalidRequestError: it is not; ``param`` names the field where there is one.
    :raises PayloadTooLargeError: it is longer than ``max_bytes``.
    """
    data = await req.stream.read()
    if len(data) > max_bytes:
        raise PayloadTooLargeError(f"the body is larger than {max_bytes} bytes")
    return convert(parse(data, Any), cls)


def read_query(req: Request, cls: type[T]) -> T:
    """Return the query as a ``cls``.

    :raises InvalidRequestError: it is none; ``param`` names the parameter.
    """
    found: T = convert(req.params, cls, strict=False)
    return found


def convert(value: Any, cls: Any, *, strict: bool = True) -> Any:
    """Return a JSON value as a ``cls``.

    :param strict: a text is no number.
    :raises InvalidRequestError: it is not one; ``param`` names the field where there is one.
    """
    if attrs.has(cls) and isinstance(value, dict):
        known = attrs.fields_dict(cls)
        for name in value.keys() - known:
            raise InvalidRequestError(
                f"{name[:64]}: unknown; there are: {', '.join(known) or 'none'}", param=name[:64]
            )
    try:
        return msgspec.convert(value, cls, strict=strict)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error)) from None
