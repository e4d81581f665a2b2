"""What LMX expects of a chat format."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, zip_longest
from typing import Any, ClassVar

import pytest

from lmx_kernel.text.formats import (
    CallArguments,
    CallEnded,
    CallStarted,
    Format,
    Parser,
    Piece,
    Reasoning,
    Text,
    find_format,
)
from lmx_kernel.types import ChatPrompt, Message, TextPart, Tool

OBJECT = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["text"],
}
TOOLS = (Tool(name="f", parameters=OBJECT), Tool(name="get_time", parameters=OBJECT))
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"text": "hello"},
    {"text": 'a "b"\n<c> \\ {é}', "n": 5},
    {"text": "}{][<>|", "n": -1},
    {"text": "🙂 日本語"},
)
PLAIN = (
    "Hello, world.",
    "a < b > c { } [ ] | ` \\ \"quoted\" 'single'",
    "line\n\nline  two",
    "1. one\n2. two",
    "日本語 🙂 é",
    "f(x) = {x} and get_time",
)
CUTS = 12

Pieces = list[Piece]


class FormatConformance:
    """For a class of the group ``lmx.formats``.

    :cvar entry: the name of its entry point.
    :cvar template: a chat template of a model that writes so.
    :cvar thought: how such a model writes the reasoning "I think." before its answer; "" if it
        does not reason.
    :cvar is_fallback: whether it also reads what models write whose template tells nothing.
    """

    entry: ClassVar[str]
    template: ClassVar[str]
    thought: ClassVar[str] = ""
    is_fallback: ClassVar[bool] = False

    def write(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Return a call as a model writes it."""
        raise NotImplementedError

    def write_all(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Return several calls of one answer as a model writes them."""
        return "".join(self.write(*call) for call in calls)

    @pytest.fixture
    def chat_format(self) -> Format:
        """The format, as a worker finds it by the template."""
        return find_format(self.template)

    def test_its_template_chooses_it(self, chat_format: Format) -> None:
        assert chat_format.name == self.entry
        for other in ("", "{{ messages }}", "{% for m in messages %}{{ m.content }}{% endfor %}"):
            assert self.is_fallback or find_format(other).name != self.entry, (
                f"it claims the template {other!r}"
            )

    def test_text_is_text(self, chat_format: Format) -> None:
        for text in PLAIN:
            assert read(chat_format, [text]) == [Text(text)]
            assert read(chat_format, text) == [Text(text)]

    def test_a_call_is_read(self, chat_format: Format) -> None:
        for name in ("f", "get_time"):
            for arguments in ARGUMENTS:
                text = self.write(name, arguments)
                assert calls_of(read(chat_format, [text])) == [(name, arguments, True)]

    def test_calls_follow_each_other(self, chat_format: Format) -> None:
        calls = [("f", ARGUMENTS[0]), ("get_time", ARGUMENTS[1]), ("f", ARGUMENTS[2])]
        pieces = read(chat_format, [self.write_all(calls)])
        assert calls_of(pieces) == [(*call, True) for call in calls]
        assert texts_of(pieces).strip() == ""

    def test_text_before_a_call_stays(self, chat_format: Format) -> None:
        pieces = read(chat_format, ["Let me see. " + self.write("f", ARGUMENTS[1])])
        assert texts_of(pieces).strip() == "Let me see."
        assert isinstance(pieces[0], Text)
        assert calls_of(pieces) == [("f", ARGUMENTS[1], True)]

    def test_the_cut_of_the_text_does_not_matter(self, chat_format: Format) -> None:
        dice = random.Random(3)
        calls = [("f", ARGUMENTS[1]), ("get_time", ARGUMENTS[2])]
        for text in ("Well. " + self.write("f", ARGUMENTS[1]), self.write_all(calls), *PLAIN):
            whole = read(chat_format, [text])
            assert read(chat_format, text) == whole, "one character at a time"
            for _ in range(CUTS):
                assert read(chat_format, pieces_of(text, dice)) == whole
            for place in range(len(text)):
                assert read(chat_format, [text[:place], text[place:]]) == whole, place

    def test_arguments_come_while_they_are_written(self, chat_format: Format) -> None:
        text = self.write("f", {"text": "x" * 200})
        parser = chat_format.parser("", TOOLS)
        early = [piece for char in text[: len(text) - 60] for piece in parser.feed(char)]
        assert any(isinstance(piece, CallStarted) for piece in early), "the name comes late"

    def test_an_answer_may_end_anywhere(self, chat_format: Format) -> None:
        """A call that is cut off is not ended, and nothing of a text is lost."""
        text = "Well. " + self.write("f", ARGUMENTS[1])
        complete = len(text.rstrip()) - 1
        for place in range(complete):
            pieces = read(chat_format, [text[:place]])
            started = [one for one in pieces if isinstance(one, CallStarted)]
            assert [one.name for one in started] in ([], ["f"])
            if not started:
                assert texts_of(pieces).strip() == text[:place].strip(), text[:place]
            for name, arguments, is_ended in calls_of(pieces):
                assert not is_ended or arguments == ARGUMENTS[1], f"{name}: {arguments}"

    def test_what_is_no_call_breaks_nothing(self, chat_format: Format) -> None:
        dice = random.Random(5)
        text = self.write("f", ARGUMENTS[1])
        for _ in range(60):
            place = dice.randrange(len(text))
            broken = text[:place] + dice.choice(("", "}", '"', "\n", "x", "<")) + text[place + 1 :]
            pieces = read(chat_format, [broken + " and more"])
            depth = 0
            for piece in pieces:
                depth += isinstance(piece, CallStarted) - isinstance(piece, CallEnded)
                assert 0 <= depth <= len(pieces), pieces
            if not any(isinstance(piece, CallStarted) for piece in pieces):
                assert texts_of(pieces).split() == (broken + " and more").split()

    def test_without_tools_everything_is_text(self, chat_format: Format) -> None:
        text = self.write("f", ARGUMENTS[0])
        pieces = read(chat_format, [text], tools=())
        assert not any(isinstance(piece, CallStarted) for piece in pieces)
        assert texts_of(pieces).strip() == text.strip()

    def test_answers_beside_each_other_do_not_mix(self, chat_format: Format) -> None:
        """A worker reads all its answers with one object of the format."""
        texts = [
            "Well. " + self.write("f", ARGUMENTS[1]),
            self.write("get_time", ARGUMENTS[2]),
            "No call at all.",
            self.write("f", ARGUMENTS[3])[:-4],
        ]
        check_side_by_side(chat_format, find_format(self.template), texts)
        call, other = self.write("f", ARGUMENTS[1]), self.write("get_time", ARGUMENTS[2])
        for shift in range(16):  # so that any part of one meets any part of the other
            check_side_by_side(
                chat_format, find_format(self.template), ["x" * shift + " " + call, other]
            )

    def test_thoughts_are_not_the_answer(self, chat_format: Format) -> None:
        if not self.thought:
            assert "I think." in texts_of(read(chat_format, ["I think."]))
            return
        for end in ("Yes.", self.write("f", ARGUMENTS[0])):
            whole = read(chat_format, [self.thought + end])
            assert read(chat_format, self.thought + end) == whole
            thoughts = [one.text for one in whole if isinstance(one, Reasoning)]
            assert "".join(thoughts).strip() == "I think."
            assert texts_of(whole).strip() in ("Yes.", "")

    def test_its_grammar_begins_as_calls_do(self, chat_format: Format) -> None:
        syntax = chat_format.calls(TOOLS, parallel=True)
        if syntax is None:
            return
        for tool in TOOLS:
            text = self.write(tool.name, ARGUMENTS[0])
            bare = syntax.bare[1] if syntax.bare else ""
            starts = (*syntax.triggers, *((bare,) if bare else ()))
            assert any(text.startswith(start[: len(text)]) for start in starts), text
            assert "calls" in syntax.grammar
            assert tool.name in syntax.grammar

    def test_it_changes_neither_messages_nor_options(self, chat_format: Format) -> None:
        messages = (Message("user", (TextPart("hi"),)),)
        options = {"enable_thinking": False}
        ChatPrompt(tuple(chat_format.explain(messages, TOOLS)), TOOLS)
        assert chat_format.template_options(options)["enable_thinking"] is False
        assert options == {"enable_thinking": False}
        assert messages == (Message("user", (TextPart("hi"),)),)
        assert isinstance(chat_format.header(""), str)


def read(chat_format: Format, chunks: Iterable[str], tools: Sequence[Tool] = TOOLS) -> Pieces:
    """Return the pieces of an answer that comes in chunks."""
    parser: Parser = chat_format.parser("", tools)
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)]
    return joined([*pieces, *parser.flush()])


def check_side_by_side(chat_format: Format, other: Format, texts: Sequence[str]) -> None:
    """Check that answers that come a character each in turns are read as alone.

    :param other: the same format, as another worker has it.
    """
    alone = [read(other, [text]) for text in texts]
    parsers = [chat_format.parser("", TOOLS) for _ in texts]
    found: list[Pieces] = [[] for _ in texts]
    for chars in zip_longest(*texts, fillvalue=""):
        for place, char in enumerate(chars):
            found[place] += parsers[place].feed(char)
    for place, parser in enumerate(parsers):
        found[place] += parser.flush()
    assert [joined(pieces) for pieces in found] == alone


def joined(pieces: Pieces) -> Pieces:
    """Join neighbours of a kind."""
    out: Pieces = []
    for kind, group in groupby(pieces, type):
        if kind in (Text, Reasoning, CallArguments):
            out.append(kind("".join(piece.text for piece in group)))  # type: ignore[union-attr]
        else:
            out += group
    return out


def texts_of(pieces: Pieces) -> str:
    """Return the text of an answer without calls and thoughts."""
    return "".join(piece.text for piece in pieces if isinstance(piece, Text))


def calls_of(pieces: Pieces) -> list[tuple[str, Any, bool]]:
    """Return the calls: name, arguments (their text where it is no JSON), whether they ended."""
    found: list[list[Any]] = []
    for piece in pieces:
        if isinstance(piece, CallStarted):
            found.append([piece.name, "", False])
        elif isinstance(piece, CallArguments):
            found[-1][1] += piece.text
        elif isinstance(piece, CallEnded):
            found[-1][2] = True
    return [(name, _value(text), is_ended) for name, text, is_ended in found]


def pieces_of(text: str, dice: random.Random) -> list[str]:
    """Cut a text at random."""
    places = sorted(dice.sample(range(len(text) + 1), min(5, len(text))))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
