"""Checks of bodies that their classes cannot express."""

from __future__ import annotations

from typing import Any

from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_openai_api.schema import (
    INT64_MIN,
    UINT64_MAX,
    ChatBody,
    ChatMessage,
    CompletionBody,
    ReasoningOptions,
    refused_fields,
)

MAX_DEPTH = 128
_SPACE = b" \t\r\n"
_REFUSED: dict[type, dict[str, frozenset[bytes]]] = {
    cls: refused_fields(cls) for cls in (ChatMessage, ReasoningOptions, ChatBody, CompletionBody)
}


def check_supported(
    body: ChatMessage | ReasoningOptions | ChatBody | CompletionBody, path: str = ""
) -> None:
    """Refuse fields of ``body`` that LMX does not do.

    :raises UnsupportedFieldError: naming the field.
    """
    for name, harmless in _REFUSED[type(body)].items():
        raw = getattr(body, name)
        if raw is not None and bytes(raw).translate(None, _SPACE) not in harmless:
            raise UnsupportedFieldError(f"{path}{name}: not supported yet", param=f"{path}{name}")


def check_function(where: str, kind: str) -> None:
    """Refuse whatever is no function.

    :raises UnsupportedFieldError: naming the field.
    """
    if kind != "function":
        where = f"{where}.type"
        raise UnsupportedFieldError(f"{where}: only functions are supported", param=where)


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


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
