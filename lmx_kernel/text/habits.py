"""What a chat template does with conversations of each kind, found out by rendering small ones.

A template's source says nothing that can be relied on: it may refuse a message, or leave it out
without a word. So each message of a conversation is replaced by a word that occurs nowhere else,
and what is rendered must have all of these words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from attrs import frozen

from lmx_kernel.text.folding import (
    PLAINEST,
    Step,
    acknowledge_results,
    calls_to_text,
    continue_before_calls,
    join_equal_roles,
    late_systems_to_user,
    leading_systems,
    merge_systems,
    open_with_user,
    split_parallel_calls,
    split_text_from_calls,
    system_to_user,
)
from lmx_kernel.text.turns import CallStyle, as_dicts
from lmx_kernel.types import Message, TextPart, Tool, ToolCall

PROBE = "qzx"
MADE_UP_ROLE = "qzrole"
PROBE_TOOL = Tool(name="other")

Try = Callable[[list[dict[str, Any]], Sequence[Tool]], str]
"""Renders dictionaries and tools; "" if the template does not take them."""

# A letter for each message: s(ystem), u(ser), a(ssistant), t(ool's result); c is a call, d two
# calls at once, b a call beside text.
TRIALS: dict[Step, tuple[str, ...]] = {
    merge_systems: ("ssu",),
    late_systems_to_user: ("suasuaus",),
    system_to_user: ("su",),
    open_with_user: ("au",),
    join_equal_roles: ("uua", "uaau"),
}
CALL_TRIALS: dict[Step, tuple[str, ...]] = {
    split_parallel_calls: ("udtt",),
    split_text_from_calls: ("ubtau",),
    acknowledge_results: ("uctu",),
}


@frozen(kw_only=True)
class Habits:
    """What a template supports.

    :ivar knows_developer: whether it has a form for the role ``developer``.
    :ivar parts: whether it takes content as a list of parts only.
    :ivar calls: the form in which it takes calls; None if it writes none.
    :ivar steps: what it needs to be done to conversations.
    """

    knows_developer: bool
    parts: bool
    calls: CallStyle | None
    steps: frozenset[Step]

    @property
    def attempts(self) -> tuple[frozenset[Step], ...]:
        """The steps to try for a conversation, the least first."""
        more: tuple[set[Step], ...] = (
            set(),
            {continue_before_calls},
            {system_to_user},
            {continue_before_calls, system_to_user},
        )
        return *(self.steps | each for each in more), PLAINEST


def probe_habits(attempt: Try) -> Habits:
    """Find out what a template supports."""
    user = {"role": "user", "content": PROBE}
    typed = {"role": "user", "content": [{"type": "text", "text": PROBE}]}
    parts = PROBE not in attempt([user], ()) and PROBE in attempt([typed], ())
    calls = _call_style(attempt, as_parts=parts)
    return Habits(
        knows_developer=_knows_developer(attempt, as_parts=parts),
        parts=parts,
        calls=calls,
        steps=frozenset(_needed(attempt, calls, as_parts=parts)),
    )


def skeleton(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return ``messages`` with a word of its own in place of each text and each call."""
    ids: dict[str | None, str | None] = {None: None}
    return tuple(_bare(index, message, ids) for index, message in enumerate(messages))


def lost(bare: Sequence[Message], text: str) -> int | None:
    """Return the first message of a skeleton that did not reach ``text``; None if all did.

    Texts of users and assistants must come in order. Others need not: some templates write the
    system message late, and results may follow each call.
    """
    position, systems = 0, leading_systems(bare)
    for index, message in enumerate(bare):
        if any(_call_word(index, n) not in text for n in range(len(message.tool_calls))):
            return index
        if not message.parts:
            continue
        is_ordered = index >= systems and message.role != "tool"
        found = text.find(_word(index), position if is_ordered else 0)
        if found < 0:
            return index
        if is_ordered:
            position = found
    return None


def _word(index: int) -> str:
    return f"{PROBE}{index}t"


def _call_word(index: int, number: int) -> str:
    return f"{PROBE}{index}c{number}e"


def _bare(index: int, message: Message, ids: dict[str | None, str | None]) -> Message:
    calls = tuple(
        ToolCall(
            ids.setdefault(call.id, f"call_{len(ids)}") or "",
            "call",
            json.dumps({_call_word(index, number): 1}),
        )
        for number, call in enumerate(message.tool_calls)
    )
    call_id = message.tool_call_id
    return Message(
        message.role,
        (TextPart(_word(index)),) if message.text.strip() else (),
        tool_calls=calls,
        tool_call_id=ids.setdefault(call_id, f"call_{len(ids)}"),
        name="call" if message.role == "tool" and message.name else None,
        reasoning="why" if message.reasoning else None,
    )


def _knows_developer(attempt: Try, *, as_parts: bool) -> bool:
    """Return whether the role is written, and otherwise than one that no template can know."""

    def written(role: str) -> str:
        turns = [Message(role, (TextPart(PROBE),)), Message("user", (TextPart("hi"),))]
        return attempt(list(as_dicts(turns, CallStyle(), as_parts=as_parts)), ()).lower()

    known = written("developer")
    return PROBE in known and known != written(MADE_UP_ROLE).replace(MADE_UP_ROLE, "developer")


def _call_style(attempt: Try, *, as_parts: bool) -> CallStyle | None:
    """Return the first style in which a call comes out whole."""
    for short, none, text in product((False, True), repeat=3):
        style = CallStyle(arguments_as_text=text, content_as_none=none, short_ids=short)
        call = ToolCall("call_0", "call", json.dumps({PROBE: 1}))
        turns = [
            Message("user", (TextPart("hi"),)),
            Message("assistant", (), tool_calls=(call,)),
            Message("tool", (TextPart("done"),), tool_call_id=call.id),
        ]
        written = attempt(list(as_dicts(turns, style, as_parts=as_parts)), [PROBE_TOOL])
        is_python = f"'{PROBE}'" in written  # an object where a text was wanted
        is_escaped = f'\\"{PROBE}' in written  # a text where an object was wanted
        if PROBE in written and not (is_python or is_escaped):
            return style
    return None


def _needed(attempt: Try, calls: CallStyle | None, *, as_parts: bool) -> set[Step]:
    """Return the steps without which a template loses, or refuses, a message."""

    def fails(plan: str, tools: Sequence[Tool]) -> bool:
        bare = skeleton(_planned(plan))
        dicts = as_dicts(bare, calls or CallStyle(), as_parts=as_parts)
        return lost(bare, attempt(list(dicts), tools)) is not None

    needed = {step for step, plans in TRIALS.items() if any(fails(one, ()) for one in plans)}
    if calls is None:
        return {*needed, calls_to_text}
    with_calls = CALL_TRIALS.items()
    return needed | {
        step for step, plans in with_calls if any(fails(one, [PROBE_TOOL]) for one in plans)
    }


def _planned(plan: str) -> list[Message]:
    """Return the conversation that a plan of ``TRIALS`` stands for."""
    text = (TextPart("text"),)
    roles = {"s": "system", "u": "user", "a": "assistant"}
    turns: list[Message] = []
    results = 0
    for letter in plan:
        if letter in roles:
            turns.append(Message(roles[letter], text))
        elif letter == "t":
            turns.append(Message("tool", text, tool_call_id=f"call_{results}"))
            results += 1
        else:
            count = 2 if letter == "d" else 1
            calls = tuple(ToolCall(f"call_{n}", "call", "{}") for n in range(count))
            turns.append(Message("assistant", text if letter == "b" else (), tool_calls=calls))
    return turns
