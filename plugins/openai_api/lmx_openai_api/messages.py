"""The turns of a conversation, as the kernel has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lmx_kernel.dialect.refused import check_supported
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import Message, TextPart, ToolCall
from lmx_openai_api.schema import CallItem, ChatMessage, ContentPart
from lmx_openai_api.tools import check_function


def message(index: int, given: ChatMessage) -> Message:
    """Return the turn at ``index``.

    :raises InvalidRequestError: naming the field that is wrong.
    :raises UnsupportedFieldError: naming the field that LMX does not do.
    """
    path = f"messages[{index}]"
    check_supported(given, f"{path}.")
    if given.role == "function":
        raise UnsupportedFieldError(
            f"{path}.role: use tools in place of functions", param=f"{path}.role"
        )
    if given.tool_calls and given.role != "assistant":
        raise InvalidRequestError(
            f"{path}.tool_calls: only an assistant calls", param=f"{path}.tool_calls"
        )
    return Message(
        role=given.role,
        parts=tuple(parts(f"{path}.content", given.content)),
        tool_calls=tuple(_calls(f"{path}.tool_calls", given.tool_calls or ())),
        tool_call_id=given.tool_call_id,
        name=given.name,
        reasoning=given.reasoning_content,
    )


def parts(path: str, content: str | list[ContentPart] | None) -> Iterator[TextPart]:
    """Yield the texts of ``content``.

    :param path: of the field, for errors.
    :raises InvalidRequestError: naming the part that is wrong.
    :raises UnsupportedFieldError: naming the part that is no text.
    """
    if isinstance(content, str):
        yield TextPart(content)
        return
    for index, part in enumerate(content or ()):
        where = f"{path}[{index}]"
        if part.type not in ("text", "refusal"):
            raise UnsupportedFieldError(f"{where}: only text is supported", param=where)
        text = part.text if part.type == "text" else part.refusal
        if text is None:
            field = f"{where}.{part.type}"
            raise InvalidRequestError(f"{field}: text is required", param=field)
        yield TextPart(text)


def _calls(path: str, calls: Iterable[CallItem]) -> Iterator[ToolCall]:
    for index, call in enumerate(calls):
        check_function(f"{path}[{index}]", call.type)
        yield ToolCall(call.id, call.function.name, call.function.arguments or "")
