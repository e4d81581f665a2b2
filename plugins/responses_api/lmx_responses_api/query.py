"""Queries and inner objects to attrs classes."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
import msgspec
from falcon.asgi import Request

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.http.json_body import wrong_field

T = TypeVar("T")


def read_query(req: Request, cls: type[T]) -> T:
    """Return the query as a ``cls``; unknown parameters are ignored, and lists may be written as
    ``name=a&name=b`` or ``name[]=a``.

    :raises InvalidRequestError: a parameter is wrong; ``param`` names it.
    """
    given: dict[str, Any] = {}
    for field in attrs.fields(cls):  # type: ignore[arg-type]
        value = req.params.get(field.name, req.params.get(f"{field.name}[]"))
        if value is not None:
            wants_list = "list" in str(field.type)
            given[field.name] = [value] if wants_list and isinstance(value, str) else value
    return convert("", given, cls, strict=False)


def convert(where: str, value: Any, cls: type[T], *, strict: bool = True) -> T:
    """Return a JSON value as a ``cls``.

    :param where: the field that has it; "" for the query.
    :param strict: a text is no number.
    :raises InvalidRequestError: it is not one; ``param`` names the field.
    """
    try:
        return msgspec.convert(value, cls, strict=strict)
    except msgspec.ValidationError as error:
        found = wrong_field(str(error))
        path = ".".join(filter(None, (where, found.param)))
        what = found.message.partition(": ")[2]
        raise InvalidRequestError(f"{path or 'query'}: {what}", param=path or None) from None
