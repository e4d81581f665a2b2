"""What a client gets of a candidate: events, ids, counts, and the same again after a resume."""

from __future__ import annotations

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from lmx_kernel.text.formats.chat_format import ChatFormat
from lmx_kernel.text.formats.json_reader import read_calls
from lmx_kernel.text.output import CandidateOutput
from lmx_kernel.types import (
    Finished,
    ReasoningDelta,
    TextDelta,
    Tool,
    ToolCallDelta,
    ToolCallStarted,
)

END, OPEN, CLOSE, OTHER = range(256, 260)
TOOLS = (Tool(name="f"), Tool(name="g"))


@define
class Tokenizer:
    """A token a byte, and control tokens."""

    token_bytes: list[bytes] = field(
        factory=lambda: [*(bytes([n]) for n in range(256)), b"<end>", b"<call>", b"</call>", b"<x>"]
    )
    special_ids: frozenset[int] = frozenset({END, OPEN, CLOSE, OTHER})
    end_ids: frozenset[int] = frozenset({END, CLOSE})
    chat_template: str | None = None
    template_texts: dict[str, str] = field(factory=dict)

    def encode(self, text, *, add_special, parse_special):
        return list(text.encode())


class CallFormat(ChatFormat):
    name = "call"
    reasoning_marks = (("<think>", "</think>"),)
    openings = ("<call>",)
    marks = ("</call>",)

    def read_call(self, reader, mark, tools):
        yield from read_calls(reader)
        yield from reader.starts("</call>")


def make_output(tools=TOOLS, prompt="", **more):
    defaults = {"stops": (), "budget": 1000, "strip_space": False, "seed": 7}
    return CandidateOutput(
        0,
        tokenizer=Tokenizer(),
        parser=CallFormat("").parser(prompt, tools),
        **(defaults | more),
    )


def tokens_of(text):
    """Return the tokens of a text in which < and > only occur in the names of control tokens."""
    controls = {b"<end>": END, b"<call>": OPEN, b"</call>": CLOSE, b"<x>": OTHER}
    left, tokens = text.encode(), []
    while left:
        name = next((name for name in controls if left.startswith(name)), b"")
        tokens.append(controls[name] if name else left[0])
        left = left[len(name) or 1 :]
    return tokens


def one_by_one(output, tokens):
    return [event for token in tokens for event in output.feed((token,))]


def gist(events):
    """Return events with all text of a kind joined: (text, thought, calls, end)."""
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    calls = {
        event.index: [event.id, event.name, ""]
        for event in events
        if isinstance(event, ToolCallStarted)
    }
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls[event.index][2] += event.arguments
    ends = [event for event in events if isinstance(event, Finished)]
    return text, thought, calls, ends


CALLS = '<call>{"name": "f", "arguments": {"a": 1}}</call><call>{"name": "g"}<end>'
ANSWER = f"<think>so</think>\n\nI look.{CALLS}"


def test_an_answer_becomes_thought_text_calls_and_an_end():
    text, thought, calls, ends = gist(one_by_one(make_output(), tokens_of(ANSWER)))
    assert (text, thought) == ("I look.", "so")
    assert [call[1:] for call in calls.values()] == [["f", '{"a": 1}'], ["g", "{}"]]
    assert ends == [Finished(0, "tool_calls", len(">so</think>"))]


def test_all_tokens_are_told_once_and_in_order():
    for events in (
        one_by_one(make_output(), tokens_of(ANSWER)),
        make_output().feed(tokens_of(ANSWER)),
    ):
        told = [token for event in events if isinstance(event, TextDelta) for token in event.tokens]
        assert told == tokens_of(ANSWER)


def test_events_of_one_step_keep_the_order_of_the_answer():
    events = make_output().feed(tokens_of(ANSWER))
    kinds = [type(event) for event in events]
    assert kinds == [
        ReasoningDelta,
        TextDelta,
        ToolCallStarted,
        ToolCallDelta,
        ToolCallStarted,
        ToolCallDelta,
        Finished,
    ]


def test_arguments_come_as_they_are_written():
    output = make_output()
    one_by_one(output, tokens_of('<call>{"name": "f", "arguments": {"a": "'))
    assert [event for event in one_by_one(output, b"xy") if isinstance(event, ToolCallDelta)] == [
        ToolCallDelta(0, 0, "x"),
        ToolCallDelta(0, 0, "y"),
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(tokens_of(ANSWER))))
def test_a_resumed_answer_is_the_same_ids_included(cut):
    tokens = tokens_of(ANSWER)
    whole = gist(one_by_one(make_output(), tokens))
    before = one_by_one(make_output(), tokens[:cut])
    second = make_output()
    second.feed(tokens[:cut])
    after = one_by_one(second, tokens[cut:])
    assert gist([*before, *after]) == whole


def test_ids_differ_between_calls_candidates_and_seeds():
    def ids(seed):
        events = make_output(seed=seed).feed(tokens_of(ANSWER))
        return {event.id for event in events if isinstance(event, ToolCallStarted)}

    assert len(ids(1) | ids(2)) == 4
    assert ids(1) == ids(1)


def test_stop_texts_end_visible_text_and_nothing_else():
    answer = (
        '<think>a stop b</think>c<call>{"name": "f", "arguments": {"a": "stop"}}</call>d stop e'
    )
    text, thought, calls, ends = gist(one_by_one(make_output(stops=("stop",)), tokens_of(answer)))
    assert (text, thought, calls[0][2]) == ("cd ", "a stop b", '{"a": "stop"}')
    assert ends[0].reason == "tool_calls"


def test_a_call_that_is_cut_is_no_end_by_calls():
    answer = tokens_of('<call>{"name": "f", "arguments": {"a": ')
    assert gist(one_by_one(make_output(), [*answer, END]))[3] == [Finished(0, "stop")]
    assert gist(one_by_one(make_output(budget=len(answer)), answer))[3] == [Finished(0, "length")]


def test_the_first_call_is_the_last_where_only_one_is_allowed():
    output = make_output(parallel_calls=False)
    _, _, calls, ends = gist(one_by_one(output, tokens_of(ANSWER)))
    assert len(calls) == 1
    assert ends[0].reason == "tool_calls"


def test_nothing_may_follow_a_complete_answer():
    output = make_output()
    events = output.feed(tokens_of("done"), is_complete=True)
    assert gist(events) == ("done", "", {}, [Finished(0, "stop")])
    assert output.feed(tokens_of("more")) == []


@pytest.mark.parametrize(("tools", "shown"), [(TOOLS, "ab"), ((), "a")])
def test_a_control_token_ends_an_answer_unless_the_format_reads_it(tools, shown):
    """Some families end parts of an answer with what ends a whole one elsewhere."""
    answer = '<call>{"name": "f"}</call>' if tools else ""
    text, *_ = gist(one_by_one(make_output(tools=tools), tokens_of(f"a{answer}</call>b")))
    assert text.replace("</call>", "") == shown


def test_control_tokens_that_the_format_does_not_read_are_hidden():
    assert gist(one_by_one(make_output(), tokens_of("a<x>b")))[0] == "ab"
    assert gist(one_by_one(make_output(tools=()), tokens_of("a<call>b")))[0] == "ab"


def test_a_thought_that_the_prompt_opened_is_counted_from_the_first_token():
    text, thought, _, ends = gist(
        one_by_one(make_output(prompt="assistant\n<think>\n"), tokens_of("so</think>yes<end>"))
    )
    assert (text, thought) == ("yes", "so")
    assert ends == [Finished(0, "stop", len("so</think>"))]


def test_a_thought_without_end_is_all_thought():
    output = make_output(budget=9)
    text, thought, _, ends = gist(one_by_one(output, tokens_of("<think>ab")))
    assert (text, thought, ends) == ("", "ab", [Finished(0, "length", 3)])
