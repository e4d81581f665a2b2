"""What a request allows an answer to be, as grammars in the words of the mask's library.

Pure text work: nothing is compiled here. The grammars are those of llguidance, Lark rules and JSON
schemas; control tokens are written by their ids, since their texts are not text to a mask.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve, field, frozen

from lmx_kernel.engine.protocol import Tokenizer
from lmx_kernel.errors import InvalidRequestError, InvalidSchemaError
from lmx_kernel.text.formats.protocol import CallSyntax
from lmx_kernel.types import Constraint, Tool

MAX_SOURCE_CHARS = 256 * 1024
"""Of one schema, pattern or grammar. Their cost grows faster than their length."""

MOST = 1024
"""Bounds of a tool's schema that are further out are left out: they bound nothing real, and cost
about ten states of the lexer for each character."""

WHITESPACE = r" |\r?\n[ \t]{0,32}"
"""Between the parts of JSON. Without a bound a small model may write spaces to the end of its days.
"""

BOUNDS = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")

VALUES = ("const", "enum", "default", "examples")
"""Keywords of a schema that hold values, no schemas."""

FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6",
                     "uuid", "uri"})  # fmt: skip
"""Of texts; those that the library knows."""

SKIPPED = r"//[^\n]*|#[^\n]*|/(?:[^/\\\n]|\\.)+/"
"""Comments and patterns of a Lark grammar."""

PIECES = re.compile(rf'(?P<json>%json\s*)|(?P<literal>"(?:[^"\\\n]|\\.)*")|{SKIPPED}')


@frozen(kw_only=True)
class Stage:
    """A part of an answer; the next one begins when nothing more may follow in it.

    :param grammar: what it may be.
    :param begun: tokens that it begins with and that the stage before has seen already.
    :param is_thought: it comes before the answer itself, which is any text if no stage follows.
    :param limit: after so many tokens ``closing`` comes, whatever the model would say.
    """

    grammar: str
    begun: tuple[int, ...] = ()
    is_thought: bool = False
    limit: int | None = None
    closing: tuple[int, ...] = ()


@frozen
class GrammarWriter:
    """Writes the grammars for one model."""

    _tokenizer: Tokenizer
    _controls: dict[str, int] = field(init=False)

    @_controls.default
    def _find_controls(self) -> dict[str, int]:
        tokenizer = self._tokenizer
        controls = sorted(tokenizer.special_ids | tokenizer.end_ids)
        return {text: token for token in controls if (text := text_of(tokenizer, token))}

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return the tokens of ``text``, control tokens among them."""
        found: list[int] = []
        for part in self._split(text):
            if isinstance(part, int):
                found.append(part)
            else:
                found += self._tokenizer.encode(part, add_special=False, parse_special=False)
        return tuple(found)

    def until(self, closing: str, *, opening: str = "", may_end: bool) -> str:
        """Return the grammar of anything between two texts, these included, and of white space
        before the first.

        :param may_end: the answer may also end without ``closing``.
        """
        first, *rest = self._split(closing)
        others = set(self._controls.values()) - self._tokenizer.end_ids - {first}
        end = f"TEXT? {self._write([first])}" if isinstance(first, int) else "closing"
        begin = f"SPACE? {self._literals(opening)}" if opening else ""
        lines = [
            f"start: {begin} free {'(end | TEXT?)' if may_end else 'end'}",
            f"free: (TEXT? <[{','.join(map(str, sorted(others)))}]>)*" if others else 'free: ""',
            f"end: {end} {self._write(rest)}",
            "TEXT: /(?s:.+)/",
            r"SPACE: /\s{1,8}/",
        ]
        if isinstance(first, str):
            lines.append(f"closing[lazy]: /(?s:.*)/ {json.dumps(first)}")
        return lark("\n".join(lines))

    def after(self, header: str, text: str) -> str:
        """Return the grammar of ``header`` and then what the grammar ``text`` allows."""
        return _beside(text, f"start: {self._literals(header)} @text") if header else text

    def calls(self, syntax: CallSyntax, text: str | None = None, header: str = "") -> str:
        """Return the grammar of calls, or of either calls or text.

        :param text: the grammar of the text.
        :param header: what stands before it.
        """
        rules = self._adapt(syntax.grammar)
        if text is None:
            return lark(f"start: calls\n{rules}")
        return _beside(text, f"start: calls | {self._literals(header)} @text\n{rules}")

    def _adapt(self, rules: str) -> str:
        """Put control tokens and the options of schemas into the rules that a format wrote."""
        written, at = [], 0
        while found := PIECES.search(rules, at):
            written.append(rules[at : found.start()])
            at = found.end()
            if found["json"]:
                source, at = json.JSONDecoder().raw_decode(rules, at)
                written.append(f"%json {json.dumps(_guided(source, is_lenient=True))}")
            elif found["literal"]:
                written.append(self._literals(json.loads(found[0])))
            else:
                written.append(found[0])
        return "".join([*written, rules[at:]])

    def _literals(self, text: str) -> str:
        return self._write(self._split(text))

    def _write(self, parts: Iterable[str | int]) -> str:
        written = [f"<[{part}]>" if isinstance(part, int) else json.dumps(part) for part in parts]
        return f"({' '.join(written)})" if len(written) > 1 else "".join(written)

    def _split(self, text: str) -> list[str | int]:
        """Return ``text`` as control tokens and what is between them."""
        if not self._controls:
            return [text] if text else []
        longest = sorted(map(re.escape, self._controls), key=len, reverse=True)
        parts = re.split(f"({'|'.join(longest)})", text)
        return [self._controls.get(part, part) for part in parts if part]


def text_of(tokenizer: Tokenizer, token: int) -> str:
    """Return the text of a token; a piece of a character has none of its own."""
    return bytes(tokenizer.token_bytes[token]).decode(errors="replace")


def lark(rules: str) -> str:
    """Return rules of which ``start`` is the first as a grammar."""
    return json.dumps({"grammars": [{"lark_grammar": rules}]})


def _beside(text: str, rules: str) -> str:
    """Return rules of which ``start`` is the first, and in which ``@text`` is another grammar."""
    [grammar] = json.loads(text)["grammars"]
    return json.dumps({"grammars": [{"lark_grammar": rules}, grammar | {"name": "text"}]})


def schema(source: object, *, is_lenient: bool = False) -> str:
    """Return the grammar of JSON that fits a schema.

    :param is_lenient: leave out what the library cannot follow, instead of refusing it later.
    """
    return json.dumps({"grammars": [{"json_schema": _guided(source, is_lenient)}]})


def opened(pattern: str) -> str:
    """Return the grammar of a pattern, and of white space before it."""
    return lark(f"start: /\\s*{pattern}/")


def constrained(constraint: Constraint) -> str:
    """Return the grammar of what fits a constraint.

    :raises InvalidSchemaError: it is too long, or no JSON.
    :raises InvalidRequestError: there is no such kind of constraint.
    """
    source = constraint.source
    if len(source) > MAX_SOURCE_CHARS:
        raise InvalidSchemaError(f"it is longer than {MAX_SOURCE_CHARS} characters")
    match constraint.kind:
        case "json_object":
            return schema({"type": "object"})
        case "json_schema":
            return _parsed(source)
        case "regex":
            return lark(f"start: {_pattern(source)}")
        case "lark":
            return lark(source)
    raise InvalidRequestError(f"there is no constraint of the kind {constraint.kind!r}")


def relaxed(tool: Tool) -> Tool:
    """Return a tool without the bounds of its schema that bound nothing real."""
    return evolve(tool, parameters=_without(_is_absurd, tool.parameters))


def patternless(tool: Tool) -> Tool:
    """Return a tool whose texts may have any form."""
    return evolve(tool, parameters=_without(_is_form, tool.parameters))


def _without(unwanted: Callable[[str, Any], bool], value: Any) -> Any:
    """Return a schema without some of its keywords, at any depth."""
    if isinstance(value, list):
        return [_without(unwanted, item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: item if key in VALUES else _without(unwanted, item)
        for key, item in value.items()
        if not unwanted(key, item)
    }


def _is_absurd(key: str, value: Any) -> bool:
    return key in BOUNDS and isinstance(value, int | float) and not 0 <= value <= MOST


def _is_form(key: str, value: Any) -> bool:
    return key in ("pattern", "format") and isinstance(value, str)


def _is_annotation(key: str, value: Any) -> bool:
    """Return whether a keyword forbids nothing: the standard lets formats be hints."""
    if key == "propertyNames":
        return value in (True, {}, {"type": "string"})
    return key == "format" and isinstance(value, str) and value not in FORMATS


def _guided(source: object, is_lenient: bool) -> object:
    """Add the library's options to a schema, in place of any that came with it."""
    if not isinstance(source, dict):
        return source
    options = {"whitespace_pattern": WHITESPACE, "lenient": is_lenient}
    return _without(_is_annotation, source) | {"x-guidance": options}


def _parsed(source: str) -> str:
    try:
        return schema(json.loads(source))
    except RecursionError:
        raise InvalidSchemaError("it is nested too deeply") from None
    except ValueError as error:
        raise InvalidSchemaError(f"it is not JSON: {error}") from None


def _pattern(source: str) -> str:
    """Return a pattern as Lark writes it."""
    slashes = re.sub(
        r"\\.|/", lambda found: found[0] if len(found[0]) > 1 else r"\/", source, flags=re.DOTALL
    )
    return "/" + slashes.replace("\n", r"\n") + "/" if source else '""'
