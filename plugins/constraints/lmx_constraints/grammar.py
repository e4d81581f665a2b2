"""What an answer may be, as the text of a grammar.

Pure text work: nothing is compiled here. The grammars are those of llguidance, Lark rules and JSON
schemas. Control tokens are written by their ids, because to a mask their texts are not text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from attrs import field, frozen

from lmx_constraints.json_schema import with_options
from lmx_kernel.engine import Tokenizer
from lmx_kernel.errors import InvalidRequestError, InvalidSchemaError
from lmx_kernel.text.formats import CallSyntax
from lmx_kernel.text.formats.json_schema import normal_form
from lmx_kernel.types import Constraint

MAX_SOURCE_CHARS = 256 * 1024
"""Of one schema, pattern or grammar. Their cost grows faster than their length."""

SKIPPED = r"//[^\n]*|#[^\n]*|/(?:[^/\\\n]|\\.)+/"
"""Comments and patterns of a Lark grammar."""

PIECES = re.compile(rf'(?P<json>%json\s*)|(?P<literal>"(?:[^"\\\n]|\\.)*")|{SKIPPED}')


@frozen
class GrammarWriter:
    """Writes the grammars for one model's vocabulary."""

    _tokenizer: Tokenizer
    _controls: dict[str, int] = field(init=False)

    @_controls.default
    def _find_controls(self) -> dict[str, int]:
        controls = control_texts(self._tokenizer)
        return {text: token for token, text in controls.items() if text}

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
        """Return the grammar of ``header`` followed by what the grammar ``text`` allows."""
        return _beside(text, f"start: {self._literals(header)} @text") if header else text

    def calls(self, syntax: CallSyntax, text: str | None = None, header: str = "") -> str:
        """Return the grammar of calls, or of either calls or text.

        :param text: the grammar of the text.
        :param header: what comes before the text.
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
                written.append(f"%json {json.dumps(with_options(source, is_lenient=True))}")
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


def control_texts(tokenizer: Tokenizer) -> dict[int, str]:
    """Return the texts of all control tokens by their ids."""
    ids = sorted(tokenizer.special_ids | tokenizer.end_ids)
    return {token: bytes(tokenizer.token_bytes[token]).decode(errors="replace") for token in ids}


def lark(rules: str) -> str:
    """Return Lark rules, of which ``start`` is the first, as a grammar."""
    return json.dumps({"grammars": [{"lark_grammar": rules}]})


def json_grammar(schema: object, *, is_lenient: bool = False) -> str:
    """Return the grammar of JSON that fits a schema.

    :param is_lenient: leave out what the library cannot follow, instead of refusing it later.
    """
    schema = with_options(schema, is_lenient=is_lenient)
    return json.dumps({"grammars": [{"json_schema": schema}]})


def pattern_after_space(pattern: str) -> str:
    """Return the grammar of a pattern, and of white space before it."""
    return lark(f"start: /\\s*{pattern}/")


def constraint_grammar(constraint: Constraint, *, is_open: bool = False) -> str:
    """Return the grammar of what fits a constraint.

    :param is_open: objects take properties that their schema does not list.
    :raises InvalidSchemaError: it is too long, or not JSON.
    :raises InvalidRequestError: there is no such kind of constraint.
    """
    source = constraint.source
    if len(source) > MAX_SOURCE_CHARS:
        raise InvalidSchemaError(f"it is longer than {MAX_SOURCE_CHARS} characters")
    match constraint.kind:
        case "json_object":
            return json_grammar({"type": "object", "additionalProperties": True})
        case "json_schema":
            return _parsed(source, is_open=is_open)
        case "regex":
            return lark(f"start: {_pattern(source)}")
        case "lark":
            return lark(source)
    raise InvalidRequestError(f"there is no constraint of the kind {constraint.kind!r}")


def _beside(text: str, rules: str) -> str:
    """Return Lark rules in which ``@text`` is another grammar."""
    [grammar] = json.loads(text)["grammars"]
    return json.dumps({"grammars": [{"lark_grammar": rules}, grammar | {"name": "text"}]})


def _parsed(source: str, *, is_open: bool) -> str:
    try:
        schema = json.loads(source)
        if not isinstance(schema, dict | bool):
            raise InvalidSchemaError("it is neither an object nor true or false")
        return json_grammar(normal_form(schema, is_open=is_open))
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
