"""The text layer: what a reader sees does not hang on how the tokens were cut."""

from __future__ import annotations

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from lmx_kernel.errors import ContextOverflowError, InvalidRequestError
from lmx_kernel.text.detokenizer import Detokenizer
from lmx_kernel.text.formats import PlainFormat
from lmx_kernel.text.output import CandidateOutput
from lmx_kernel.text.prompt import PromptEncoder
from lmx_kernel.text.stops import StopScanner
from lmx_kernel.types import (
    ChatPrompt,
    EmbeddingPrompt,
    EngineLimits,
    Finished,
    GenerationRequest,
    Message,
    SamplingRequest,
    TextDelta,
    TextPart,
    TextPrompt,
    TokenPrompt,
    Tool,
    ToolCall,
    ToolChoice,
)

END = 256


@define
class ByteTokenizer:
    """A token a byte, and an end token."""

    token_bytes: list[bytes] = field(factory=lambda: [*(bytes([n]) for n in range(256)), b"<end>"])
    special_ids: frozenset[int] = frozenset({END})
    end_ids: frozenset[int] = frozenset({END})
    chat_template: str | None = None
    template_texts: dict[str, str] = field(factory=dict)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return list(text.encode())


def make_output(stops=(), budget=1000, strip_space=False):
    return CandidateOutput(
        0,
        tokenizer=ByteTokenizer(),
        parser=PlainFormat().parser(),
        stops=stops,
        budget=budget,
        strip_space=strip_space,
    )


def read(output, tokens):
    """Feed one token at a time; return the text and how it ended."""
    events = [event for token in tokens for event in output.feed((token,))]
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    ends = [event.reason for event in events if isinstance(event, Finished)]
    return text, ends


@given(st.text())
def test_detokenizer_gives_the_text_that_was_cut_into_bytes(text):
    detokenizer = Detokenizer(ByteTokenizer(), strip_space=False)
    pieces = [detokenizer.feed(token) for token in text.encode()]
    assert "".join(pieces) + detokenizer.flush() == text


def test_detokenizer_marks_a_cut_character():
    detokenizer = Detokenizer(ByteTokenizer(), strip_space=False)
    assert detokenizer.feed(0xE2) == ""
    assert detokenizer.flush() == "\ufffd"


def test_detokenizer_hides_control_tokens():
    assert Detokenizer(ByteTokenizer(), strip_space=False).feed(END) == ""


def test_a_chat_reply_loses_one_leading_space_and_a_completion_none():
    assert read(make_output(strip_space=True), b"  hi")[0] == " hi"
    assert read(make_output(strip_space=False), b"  hi")[0] == "  hi"


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_stops_cut_before_the_first_stop_text_wherever_chunks_end(text, stops):
    scanner = StopScanner(stops)
    shown = ""
    for character in text:
        shown += scanner.feed(character)
        if scanner.hit:
            break
    else:
        shown += scanner.flush()
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert (shown, scanner.hit) == (text, "")
    else:
        assert scanner.hit in stops
        seen = text[: min(ends)]  # the scanner stops at the first that is complete
        assert shown == seen[: min(seen.find(stop) for stop in stops if stop in seen)]


def test_held_text_is_shown_as_soon_as_it_cannot_be_a_stop():
    scanner = StopScanner(["</s>"])
    assert scanner.feed("a</") == "a"
    assert scanner.feed("b") == "</b"


def test_output_ends_at_the_end_token_and_counts_it():
    output = make_output()
    events = output.feed((*b"hi", END, *b"never"))
    assert events == [TextDelta(0, "hi", (*b"hi", END)), Finished(0, "stop")]


def test_output_ends_at_its_budget_with_the_held_text():
    text, ends = read(make_output(stops=("xyz",), budget=3), b"axy")
    assert (text, ends) == ("axy", ["length"])


def test_output_ends_before_a_stop_text():
    assert read(make_output(stops=("lo",)), b"hello world") == ("hel", ["stop"])


@given(st.binary(max_size=40), st.integers(0, 40))
def test_a_resumed_output_goes_on_where_the_old_one_stood(tokens, cut):
    """What the client gets of two workers is what it would have got of one."""
    stops = ("ab", "\ufffd\ufffd")
    whole = read(make_output(stops, budget=30), tokens)
    first = make_output(stops, budget=30)
    before = read(first, tokens[:cut])
    if before[1]:
        assert before == whole
        return
    second = make_output(stops, budget=30)
    second.feed(tuple(tokens[:cut]))
    after = read(second, tokens[cut:])
    assert (before[0] + after[0], after[1]) == whole


def messages(*texts):
    return [Message("user", (TextPart(text),)) for text in texts]


def request(prompt, **sampling):
    return GenerationRequest(model="m", prompt=prompt, sampling=SamplingRequest(**sampling))


LIMITS = EngineLimits(context_length=8, max_sequences=1, cache_tokens=8)


def encode(prompt, **sampling):
    return PromptEncoder(ByteTokenizer(), LIMITS).encode(request(prompt, **sampling))


def test_a_prompt_may_fill_the_context_and_not_more():
    assert len(encode(TextPrompt("12345678"))) == 8
    with pytest.raises(
        ContextOverflowError, match=r"9 tokens.* maximum context length is 8 tokens"
    ) as caught:
        encode(TextPrompt("123456789"))
    assert caught.value.figures == {"tokens": 9, "limit": 8}


class UnusedTokenizer(ByteTokenizer):
    """A tokenizer, and a template, that must not see the text."""

    def encode(self, text, *, add_special, parse_special):
        assert len(text) < 100, "the text is longer than anything that fits"
        return super().encode(text, add_special=add_special, parse_special=parse_special)


LONG = "x" * 10_000_000


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (TextPrompt(LONG), "prompt"),
        (ChatPrompt(tuple(messages(LONG))), "messages"),
        (ChatPrompt((Message("assistant", (), reasoning=LONG),)), "messages"),
        (
            ChatPrompt((Message("assistant", (), tool_calls=(ToolCall("", "f", LONG),)),)),
            "messages",
        ),
    ],
)
@pytest.mark.parametrize("max_tokens", [1, 0])
def test_what_cannot_fit_reaches_neither_template_nor_tokenizer(prompt, param, max_tokens):
    encoder = PromptEncoder(UnusedTokenizer(chat_template="{{ nothing.here }}"), LIMITS)
    with pytest.raises(
        ContextOverflowError,
        match=r"too long: 2500000 tokens .* maximum context length is 8 tokens",
    ) as caught:
        encoder.encode(GenerationRequest(model="m", prompt=prompt, max_tokens=max_tokens))
    assert caught.value.param == param
    assert caught.value.figures == {"tokens": 2500000, "limit": 8}


def test_a_hidden_tool_leaves_the_prompt_alone():
    tokenizer = ByteTokenizer(
        chat_template="{% for t in tools %}{{ t.function.name }};{% endfor %}"
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
        "{% endfor %}{% endfor %}"
    )
    encoder = PromptEncoder(tokenizer, evolve(LIMITS, context_length=1000))
    shown, hidden = Tool(name="shown"), Tool(name="apart", hidden=True)

    def tokens(*tools):
        return encoder.encode(request(ChatPrompt(tuple(messages("hi")), tools)))

    assert tokens(hidden, shown) == tokens(shown, hidden) == tokens(shown)
    assert tokens(hidden) == tokens()


def test_an_embedding_input_that_cannot_fit_does_not_reach_the_tokenizer():
    encoder = PromptEncoder(UnusedTokenizer(), LIMITS)
    inputs = (TextPrompt("x"), TextPrompt(LONG))
    with pytest.raises(ContextOverflowError, match="input 1 is too long") as caught:
        encoder.encode_inputs(request(EmbeddingPrompt(inputs)), inputs)
    assert caught.value.param == "input"


def test_a_text_that_is_only_counted_may_be_longer_than_the_context():
    counted = GenerationRequest(model="m", prompt=TextPrompt("x" * 100_000), max_tokens=0)
    assert len(PromptEncoder(ByteTokenizer(), LIMITS).encode(counted)) == 100_000


@pytest.mark.parametrize(
    ("prompt", "sampling", "param"),
    [
        (TextPrompt(""), {}, "prompt"),
        (TokenPrompt((1, 257)), {}, "prompt"),
        (TokenPrompt((-1,)), {}, "prompt"),
        (TextPrompt("a"), {"logit_bias": {257: 1.0}}, "logit_bias"),
    ],
)
def test_what_the_vocabulary_does_not_have_is_refused(prompt, sampling, param):
    with pytest.raises(InvalidRequestError) as caught:
        encode(prompt, **sampling)
    assert caught.value.param == param


def test_a_model_without_template_cannot_chat():
    with pytest.raises(InvalidRequestError, match="no chat template"):
        encode(ChatPrompt(tuple(messages("a"))))


def test_a_model_whose_template_is_broken_still_continues_text():
    encoder = PromptEncoder(ByteTokenizer(chat_template="{% if %}"), LIMITS)
    assert encoder.encode(request(TextPrompt("abc"))) == [*b"abc"]
    with pytest.raises(InvalidRequestError, match="broken"):
        encoder.encode(request(ChatPrompt(tuple(messages("a")))))


def test_tools_are_in_the_prompt_unless_none_may_be_called():
    template = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    template += "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    template += "{{ c.function.arguments|tojson }}{% endfor %}{% endfor %}"
    encoder = PromptEncoder(ByteTokenizer(chat_template=template), LIMITS, PlainFormat())
    prompt = ChatPrompt(tuple(messages("a")), (Tool(name="f"),))
    assert encoder.encode(request(prompt)) == [*b"fa"]
    none = evolve(request(prompt), tool_choice=ToolChoice(mode="none"))
    assert encoder.encode(none) == [*b"a"]
