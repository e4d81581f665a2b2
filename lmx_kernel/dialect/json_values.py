"""Values of a body that are passed on as they are: JSON schemas and variables of templates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lmx_kernel.dialect.fields import INT64_MIN, UINT64_MAX
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Constraint

MAX_DEPTH = 128


def check_json(where: str, value: Any) -> None:
    """Refuse integers of more than 64 bits, which cannot be sent to a worker (MessagePack), and
    values nested deeper than ``MAX_DEPTH``, since the code that reads them is recursive.

    :raises InvalidRequestError: naming the field.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        if any(isinstance(item, int) and not INT64_MIN <= item <= UINT64_MAX for item in level):
            raise InvalidRequestError(f"{where}: a number has more than 64 bits", param=where)
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    raise InvalidRequestError(f"{where}: nested too deeply", param=where)


def schema_constraint(where: str, schema: dict[str, Any]) -> Constraint:
    """Return what makes an answer fit a JSON schema.

    :param where: the field that has the schema.
    :raises InvalidRequestError: as :func:`check_json`.
    """
    check_json(where, schema)
    return Constraint("json_schema", msgspec.json.encode(schema).decode(), param=where)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
