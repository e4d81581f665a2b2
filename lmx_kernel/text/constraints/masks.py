"""Masks: what the next token of an answer may be, so that the answer is what the request asked for.

Masks are made by llguidance. A matcher is compiled once for each grammar and copied for each
candidate; a mask's state is a pure function of the tokens it has accepted, like all of the text
layer's, so that a resumed answer goes on as it would have.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from lmx_kernel.engine.protocol import Tokenizer
from lmx_kernel.errors import InternalError, InvalidRequestError, InvalidSchemaError
from lmx_kernel.text.constraints.checker import Compiler, first_line, limits
from lmx_kernel.text.constraints.grammar import (
    GrammarWriter,
    Stage,
    constrained,
    opened,
    patternless,
    relaxed,
    schema,
    text_of,
)
from lmx_kernel.text.formats.protocol import CallSyntax, Format, offered_tools
from lmx_kernel.types import ChatPrompt, Constraint, GenerationRequest, Tool

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

GRAMMARS = 64
"""Compiled ones that are kept for each model; a few hundred kilobytes each."""

DEAD_END = "no token of the model's vocabulary may come next"


def needs_mask(request: GenerationRequest) -> bool:
    """Return whether an answer to a request may be more than just any text."""
    return (
        request.constraint is not None
        or request.reasoning_tokens is not None
        or bool(offered_tools(request))
    )


# --- one candidate -------------------------------------------------------------------------------


@frozen
class Ready:
    """A stage and its matcher, of which each candidate takes a copy."""

    stage: Stage
    matcher: LLMatcher


@define
class _Way:
    """One way in which an answer may go on: through stages, of which the first has begun.

    :ivar matcher: None where anything may follow.
    :ivar seen: tokens of the stage at hand.
    :ivar is_over: nothing may follow.
    :ivar has_turned: the last token ended a stage that another one follows.
    """

    ready: Sequence[Ready]
    matcher: LLMatcher | None = field(default=None, init=False)
    seen: int = field(default=0, init=False)
    is_over: bool = field(default=False, init=False)
    has_turned: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.ready:
            self._enter()

    @property
    def overdue(self) -> tuple[int, ...]:
        """The end of a thought that has taken long enough."""
        if self.matcher is None:
            return ()
        stage = self.ready[0].stage
        return stage.closing if stage.limit is not None and self.seen >= stage.limit else ()

    @property
    def is_thinking(self) -> bool:
        """Whether a thought is not over."""
        return self.matcher is not None and self.ready[0].stage.is_thought

    def take(self, token: int) -> bool:
        """Take note of a token; False if it does not go on this way."""
        self.has_turned = False
        if self.matcher is None:
            return True
        if self.is_over or not self.matcher.consume_token(token):
            return False
        self.seen += 1
        self._leave()
        return True

    def _enter(self) -> None:
        self.seen = 0
        self.matcher = self.ready[0].matcher.deep_copy()
        self._leave()

    def _leave(self) -> None:
        """Go on to the next stage if nothing may follow in this one."""
        if self.matcher is None or self.matcher.is_error() or not self.matcher.is_stopped():
            return
        has_ended = self.matcher.stop_reason() == "EndOfSentence"
        if len(self.ready) > 1 and not has_ended:
            self.has_turned = True
            self.ready = self.ready[1:]
            self._enter()
        elif not has_ended and self.ready[0].stage.is_thought:
            self.has_turned, self.matcher = True, None
        else:
            self.is_over = True


class Mask:
    """The mask of one candidate; see :class:`lmx_kernel.engine.TokenMask`.

    :ivar problem: why nothing may follow although the answer is not complete; "" if all is well.
    """

    def __init__(self, rows: Sequence[Sequence[Ready]]) -> None:
        self.problem = ""
        self._ways = [_Way(row) for row in rows]
        self._forced: list[int] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow: the sequence ends here."""
        return all(way.is_over for way in self._ways)

    def fill(self, row: Any) -> bool:
        """Write which tokens are allowed; False where all are, or where it does not matter."""
        if self.problem or self.is_complete:
            return False
        forced = self.forced()
        if not forced and any(way.matcher is None for way in self._ways):
            return False
        words = memoryview(row).cast("B")
        if forced:
            words[:] = bytes(len(words))
            words[forced[0] // 8] = 1 << forced[0] % 8
        else:
            self._compute(words)
        return not self.problem

    def accept(self, tokens: Sequence[int]) -> None:
        """Take note of tokens that were said."""
        for token in tokens:
            if self.problem or self.is_complete:
                return
            self._follow(token)

    def forced(self) -> list[int]:
        """Return the tokens that must come next whatever is drawn; not accepted yet."""
        if self._forced is None:
            self._forced = self._find_forced()
        return list(self._forced)

    def _compute(self, words: memoryview) -> None:
        address = ctypes.addressof(ctypes.c_char.from_buffer(words))
        union = 0
        for way in list(self._ways):
            assert way.matcher is not None
            way.matcher.unsafe_compute_mask_ptr(address, len(words))
            if way.matcher.is_error():
                self._give_up(way, f"{DEAD_END}: {first_line(way.matcher.get_error())}")
            elif len(self._ways) > 1:
                union |= int.from_bytes(words, "little")
        if union:
            words[:] = union.to_bytes(len(words), "little")
        if not bytes(words).strip(b"\0"):
            self.problem = DEAD_END

    def _follow(self, token: int) -> None:
        rest = self._forced[1:] if self._forced and self._forced[0] == token else []
        self._forced = rest or None
        for way in list(self._ways):
            if not way.take(token):
                self._give_up(way, DEAD_END)
        # A turn shows which way it was all along; but what is said in a thought is only thought.
        if not any(way.is_thinking for way in self._ways):
            self._ways = [way for way in self._ways if way.has_turned] or self._ways

    def _give_up(self, way: _Way, reason: str) -> None:
        if len(self._ways) > 1:
            self._ways.remove(way)
        else:
            self.problem = reason

    def _find_forced(self) -> list[int]:
        if self.problem or self.is_complete or self._ways[0].matcher is None:
            return []
        matcher, overdue = self._ways[0].matcher, list(self._ways[0].overdue)
        if overdue and matcher.validate_tokens(overdue) == len(overdue):
            return overdue
        return matcher.compute_ff_tokens() if len(self._ways) == 1 else []


# --- one request ---------------------------------------------------------------------------------


@frozen
class Shape:
    """What answers to one request may be.

    :param rows: ways of an answer, each through all of its stages; one without any is free.
    """

    rows: Sequence[Sequence[Ready]]

    def mask(self) -> Mask:
        """Return the mask of a new candidate."""
        return Mask(self.rows)


# --- one model -----------------------------------------------------------------------------------


class MaskFactory:
    """Makes the masks of one model. Its calls may come from any thread.

    What they need is made when it is first needed: the vocabulary as the library wants it takes
    about 3 us a token, and stays.
    """

    def __init__(self, tokenizer: Tokenizer, chat_format: Format) -> None:
        self._tokenizer = tokenizer
        self._format = chat_format
        self._writer = GrammarWriter(tokenizer)
        controls = sorted(tokenizer.special_ids | tokenizer.end_ids)
        texts = {token: text_of(tokenizer, token) for token in controls}
        self._compiler = Compiler(len(tokenizer.token_bytes), texts)
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None
        self._matcher = lru_cache(GRAMMARS)(self._compile)

    def shape(self, request: GenerationRequest, prompt: str) -> Shape | None:
        """Return what answers to ``request`` may be; None for anything.

        :param prompt: the end of the prompt's text.
        :raises InvalidSchemaError: a schema, pattern or grammar cannot be followed exactly.
        :raises InvalidRequestError: a tool must be called and none can be, or a strict one cannot
            be held to its schema.
        """
        is_chat = isinstance(request.prompt, ChatPrompt)
        try:
            bodies = self._bodies(request, self._format.header(prompt) if is_chat else "")
        except RecursionError:
            raise InvalidSchemaError("a schema is nested too deeply", param="tools") from None
        rows, texts = bodies, self._format.thought(prompt) if is_chat else None
        if texts is not None and (bodies or request.reasoning_tokens is not None):
            thought = self._thought(*texts, request.reasoning_tokens, is_all=not bodies)
            thinking = [(thought, *body) for body in bodies or [()]]
            is_open = not texts[0]
            rows = thinking if is_open else [*thinking, *(bodies or [()])]
        return Shape([tuple(map(self._ready, row)) for row in rows]) if rows else None

    def close(self) -> None:
        """End what runs for it."""
        self._compiler.close()

    def _thought(self, opening: str, closing: str, limit: int | None, *, is_all: bool) -> Stage:
        taken = len(self._writer.tokens(opening))
        return Stage(
            grammar=self._writer.until(closing, opening=opening, may_end=is_all),
            is_thought=True,
            limit=None if limit is None else limit + taken,
            closing=self._writer.tokens(closing),
        )

    def _bodies(self, request: GenerationRequest, header: str) -> list[tuple[Stage, ...]]:
        """Return the ways of an answer without its thought; none for any text.

        :param header: what stands before its text.
        """
        text = self._text(request.constraint)
        calls = self._calls(request, text, header)
        if calls is None:
            return [(Stage(grammar=self._writer.after(header, text)),)] if text is not None else []
        syntax, grammar = calls
        if text is not None or request.tool_choice.mode == "required":
            return [(Stage(grammar=grammar),)]
        return self._openings(syntax, grammar)

    def _openings(self, syntax: CallSyntax, grammar: str) -> list[tuple[Stage, ...]]:
        """Return how text goes on as calls, a way for each text that begins them."""
        rows: list[tuple[Stage, ...]] = []
        for trigger in syntax.triggers:
            free = Stage(grammar=self._writer.until(trigger, may_end=True))
            rows.append((free, Stage(grammar=grammar, begun=self._writer.tokens(trigger))))
        if syntax.bare is not None:
            pattern, text = syntax.bare
            begun = self._writer.tokens(text)
            rows += [(Stage(grammar=opened(pattern)), Stage(grammar=grammar, begun=begun))]
        return rows if syntax.triggers else [*rows, ()]

    def _text(self, constraint: Constraint | None) -> str | None:
        if constraint is None:
            return None
        try:
            grammar = constrained(constraint)
        except InvalidSchemaError as error:
            fault = error.message
        else:
            fault = self._compiler.fault(grammar)
        if fault:
            raise InvalidSchemaError(
                f"the {constraint.kind} cannot be followed: {fault}", param=constraint.param
            )
        return grammar

    def _calls(
        self, request: GenerationRequest, text: str | None, header: str
    ) -> tuple[CallSyntax, str] | None:
        """Return how tools are called, and the grammar of calls, or of them or ``text``."""
        choice = request.tool_choice
        tools = [
            relaxed(tool)
            for tool in offered_tools(request)
            if not choice.names or tool.name in choice.names
        ]
        must = choice.mode == "required"
        for offered in self._attempts(tools):
            syntax = self._format.calls(offered, parallel=request.parallel_tool_calls)
            if syntax is None:
                break
            grammar = self._writer.calls(syntax, None if must else text, header)
            if not self._compiler.fault(grammar):
                return syntax, grammar
        if must:
            raise InvalidRequestError("none of these tools can be called here", param="tool_choice")
        if any(tool.strict for tool in tools):
            raise InvalidRequestError(
                "this model's calls cannot be held to the schema of a strict tool", param="tools"
            )
        return None

    def _attempts(self, tools: Sequence[Tool]) -> Iterator[Sequence[Tool]]:
        """Yield the tools without what cannot be followed, and then with less of it still.

        :raises InvalidSchemaError: of a strict tool it must be.
        """
        sound = [self._sound(tool) for tool in tools]
        if sound:
            yield sound
            yield [tool if tool.strict else _loose(tool) for tool in sound]

    def _sound(self, tool: Tool) -> Tool:
        """Return a tool with as much of its schema as can be followed."""
        fault = self._fault(tool)
        if fault and tool.strict:
            raise InvalidSchemaError(
                f"the parameters of {tool.name} cannot be followed: {fault}", param="tools"
            )
        eased = patternless(tool) if fault else tool
        return eased if not fault or not self._fault(eased) else _loose(tool)

    def _fault(self, tool: Tool) -> str:
        return self._compiler.fault(schema(tool.parameters, is_lenient=not tool.strict))

    def _ready(self, stage: Stage) -> Ready:
        matcher = self._matcher(stage.grammar)
        if stage.begun:
            matcher = matcher.deep_copy()
            if not matcher.consume_tokens(list(stage.begun)):
                raise InternalError(f"calls of {self._format.name} do not begin as it says")
        return Ready(stage, matcher)

    def _compile(self, grammar: str) -> LLMatcher:
        from llguidance import LLMatcher  # noqa: PLC0415 - takes 60 ms, and few need it

        matcher = LLMatcher(self._library_vocabulary(), grammar, log_level=0, limits=limits())
        if not matcher.is_error():
            matcher.compute_bitmask()  # some faults show no earlier
        if matcher.is_error():
            raise InvalidSchemaError(first_line(matcher.get_error()))
        return matcher

    def _library_vocabulary(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415 - as above

        with self._lock:
            if self._vocabulary is None:
                wrapper = TokenizerWrapper(_Vocabulary(self._tokenizer))
                size, ends = len(self._tokenizer.token_bytes), sorted(self._tokenizer.end_ids)
                self._vocabulary = LLTokenizer(wrapper, n_vocab=size, eos_token=ends)
            return self._vocabulary


class _Vocabulary:
    """A tokenizer as llguidance wants it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens = tokenizer.token_bytes
        self.special_token_ids = sorted(tokenizer.special_ids | tokenizer.end_ids)
        self.bos_token_id = None
        self.eos_token_id = min(tokenizer.end_ids, default=0)
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        plain = text.decode(errors="replace")
        return self._tokenizer.encode(plain, add_special=False, parse_special=False)


def _loose(tool: Tool) -> Tool:
    return evolve(tool, parameters={"type": "object"})
