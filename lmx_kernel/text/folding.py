"""Conversations folded into what a chat template can take, without losing a message.

Each step is for one thing that some templates refuse, or leave out without a word. Which of them a
template needs is found out by rendering, see :mod:`lmx_kernel.text.habits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from attrs import evolve

from lmx_kernel.types import Message, TextPart, ToolCall

INSTRUCTING = frozenset({"system", "developer"})
BLANK_LINE = TextPart("\n\n")
LATE_SYSTEM = TextPart("[System message]\n")
OPENING = Message("user", (TextPart("(The conversation begins.)"),))
CONTINUATION = Message("user", (TextPart("(Go on.)"),))
ACKNOWLEDGEMENT = Message("assistant", (TextPart("(The result is noted.)"),))

Step = Callable[[Sequence[Message]], Sequence[Message]]


def fold(messages: Sequence[Message], steps: frozenset[Step]) -> Sequence[Message]:
    """Return ``messages`` after the given steps, which are applied in the order of ``STEPS``."""
    for step in STEPS:
        if step in steps:
            messages = step(messages)
    return messages


def leading_systems(messages: Sequence[Message]) -> int:
    """Return how many messages with instructions a conversation begins with."""
    return len(list(takewhile(lambda message: message.role in INSTRUCTING, messages)))


def merge_systems(messages: Sequence[Message]) -> Sequence[Message]:
    """Merge the system messages that a conversation begins with."""
    count = leading_systems(messages)
    if count < 2:
        return messages
    first = messages[0]
    for other in messages[1:count]:
        first = _joined(first, other)
    return [first, *messages[count:]]


def late_systems_to_user(messages: Sequence[Message]) -> Sequence[Message]:
    """Write each later system message, marked as such, into the user's message next to it; one
    that has none becomes a user's message.
    """
    count = leading_systems(messages)
    folded = list(messages[:count])
    was_late = False
    for message in messages[count:]:
        is_late = message.role in INSTRUCTING
        turn = _marked(message) if is_late else message
        if folded and folded[-1].role == turn.role == "user" and (is_late or was_late):
            folded[-1] = _joined(folded[-1], turn)
        else:
            folded.append(turn)
        was_late = is_late
    return folded


def _marked(message: Message) -> Message:
    return evolve(message, role="user", parts=(LATE_SYSTEM, *message.parts))


def system_to_user(messages: Sequence[Message]) -> Sequence[Message]:
    """Write the system message before the first user's message."""
    if not messages or messages[0].role not in INSTRUCTING:
        return messages
    system, *rest = messages
    system = evolve(system, role="user")
    for index, message in enumerate(rest):
        if message.role == "user":
            return [*rest[:index], _joined(system, message, name=message.name), *rest[index + 1 :]]
    return [system, *rest]


def calls_to_text(messages: Sequence[Message]) -> Sequence[Message]:
    """Tell calls and their results in plain words."""
    names: dict[str | None, str] = {}
    told = []
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        if message.role == "tool":
            name = message.name or names.get(message.tool_call_id, "")
            lead = TextPart(f"[Result of the function {name}]\n")
            told.append(Message("user", (lead, *message.parts)))
        elif message.tool_calls:
            lines = [f"[Called {call.name}: {call.arguments}]" for call in message.tool_calls]
            calls = Message("assistant", (TextPart("\n".join(lines)),))
            told.append(_joined(evolve(message, tool_calls=()), calls))
        else:
            told.append(message)
    return told


def split_parallel_calls(messages: Sequence[Message]) -> Sequence[Message]:
    """Let one message have one call, with its result behind it."""
    split: list[Message] = []
    index = 0
    while index < len(messages):
        message, index = messages[index], index + 1
        behind = takewhile(lambda turn: turn.role == "tool", messages[index:])
        results = list(behind) if len(message.tool_calls) > 1 else []
        index += len(results)
        if len(message.tool_calls) > 1:
            split += _one_by_one(message, results)
            split += results
        else:
            split.append(message)
    return split


def _one_by_one(message: Message, results: list[Message]) -> Iterator[Message]:
    """Yield each call and its result, which is taken from ``results``."""
    for call in message.tool_calls:
        is_first = call is message.tool_calls[0]
        yield evolve(message, tool_calls=(call,)) if is_first else _calling(call)
        own = next((one for one in results if one.tool_call_id == call.id), None)
        if own is not None:
            results.remove(own)
            yield own


def _calling(call: ToolCall) -> Message:
    return Message("assistant", (), tool_calls=(call,))


def split_text_from_calls(messages: Sequence[Message]) -> Sequence[Message]:
    """Let a text that stands beside calls be a message of its own, before them."""
    split = []
    for message in messages:
        if message.tool_calls and message.text:
            split.append(evolve(message, tool_calls=(), reasoning=None))
            split.append(evolve(message, parts=()))
        else:
            split.append(message)
    return split


def continue_before_calls(messages: Sequence[Message]) -> Sequence[Message]:
    """Let the user speak between an assistant's text and the calls that follow it."""
    continued: list[Message] = []
    for message in messages:
        last = continued[-1] if continued else None
        if message.tool_calls and last and last.role == "assistant" and not last.tool_calls:
            continued.append(CONTINUATION)
        continued.append(message)
    return continued


def open_with_user(messages: Sequence[Message]) -> Sequence[Message]:
    """Let the user begin."""
    count = leading_systems(messages)
    if messages[count:] and messages[count].role == "assistant":
        return [*messages[:count], OPENING, *messages[count:]]
    return messages


def acknowledge_results(messages: Sequence[Message]) -> Sequence[Message]:
    """Let the assistant speak between a tool's result and the user.

    The user's text does not move into the result, where any result could forge it.
    """
    spoken: list[Message] = []
    for message in messages:
        if message.role == "user" and spoken and spoken[-1].role == "tool":
            spoken.append(ACKNOWLEDGEMENT)
        spoken.append(message)
    return spoken


def join_equal_roles(messages: Sequence[Message]) -> Sequence[Message]:
    """Join messages of the same role that follow each other."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        is_same = last is not None and last.role == message.role != "tool"
        if last is not None and is_same and not last.tool_calls:
            joined[-1] = _joined(last, message)
        else:
            joined.append(message)
    return joined


def _joined(first: Message, second: Message, name: str | None = None) -> Message:
    """Return both as one message, with a blank line between their texts."""
    between = (BLANK_LINE,) if first.text and second.text else ()
    thoughts = [one.reasoning for one in (first, second) if one.reasoning]
    return evolve(
        first,
        parts=(*first.parts, *between, *second.parts),
        tool_calls=second.tool_calls,
        name=name or first.name,
        reasoning="\n\n".join(thoughts) or None,
    )


# In the order in which they are applied: each leaves work only to those after it.
STEPS: tuple[Step, ...] = (
    calls_to_text,
    merge_systems,
    late_systems_to_user,
    system_to_user,
    split_parallel_calls,
    split_text_from_calls,
    continue_before_calls,
    open_with_user,
    acknowledge_results,
    join_equal_roles,
)
PLAINEST: frozenset[Step] = frozenset(STEPS)
