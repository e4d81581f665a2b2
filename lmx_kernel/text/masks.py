"""Masks: what the next token of an answer may be, so that the answer is what the request asked for.

Masks are made by llguidance. A matcher is compiled once for each grammar and copied for each
candidate; a mask's state is a pure function of the tokens it has accepted, like all of the text
layer's, so that a resumed answer goes on as it would have.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, frozen

from lmx_kernel.engine import Tokenizer
from lmx_kernel.errors import InternalError, InvalidRequestError, InvalidSchemaError
from lmx_kernel.text.compiler import Compiler, limits
from lmx_kernel.text.formats import Format, offered_tools
from lmx_kernel.text.grammar import GrammarWriter, Stage, constrained, relaxed, schema, text_of
from lmx_kernel.types import ChatPrompt, Constraint, GenerationRequest, Tool

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

GRAMMARS = 64
"""Compiled ones that are kept for each model; a few hundred kilobytes each."""

NO_MASK = "the model's vocabulary has no token that may come next"


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
    """One way in which an answer may go on: a stage, and those after it.

    :param matcher: None where anything may follow.
    """

    ready: Sequence[Ready]
    matcher: LLMatcher | None = None
    seen: int = 0
    is_over: bool = False

    def __attrs_post_init__(self) -> None:
        self._enter()

    @property
    def stage(self) -> Stage:
        return self.ready[0].stage

    @property
    def is_overdue(self) -> bool:
        """Whether its thought has taken long enough."""
        limit = self.stage.limit if self.matcher is not None else None
        return limit is not None and self.seen >= limit

    def take(self, token: int) -> bool:
        """Take note of a token; False if it does not go on this way."""
        if self.matcher is None:
            return True
        self.seen += 1
        if self.is_over or not self.matcher.consume_token(token):
            return False
        self._leave()
        return True

    def _enter(self) -> None:
        if self.ready:
            self.seen = 0
            self.matcher = self.ready[0].matcher.deep_copy()
            self._leave()

    def _leave(self) -> None:
        """Go on to the next stage if nothing may follow in this one."""
        assert self.matcher is not None
        if not self.matcher.is_stopped() or self.matcher.is_error():
            return
        if len(self.ready) > 1:
            self.ready = self.ready[1:]
            self._enter()
        elif self.stage.is_thought:
            self.matcher = None
        else:
            self.is_over = True


class Mask:
    """The mask of one candidate; see :class:`lmx_kernel.engine.TokenMask`.

    :ivar problem: why nothing may follow although the answer is not complete; "" if all is well.
    """

    def __init__(self, rows: Sequence[Sequence[Ready]], end_ids: frozenset[int]) -> None:
        self.problem = ""
        self._ways = [_Way(row) for row in rows]
        self._end_ids = end_ids
        self._has_ended = False
        self._forced: list[int] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow: the sequence ends here."""
        return self._has_ended or all(way.is_over for way in self._ways)

    def fill(self, row: Any) -> bool:
        """Write which tokens are allowed; False where all are."""
        if self.problem or self.is_complete or any(way.matcher is None for way in self._ways):
            return False
        words = memoryview(row).cast("B")
        if forced := self.forced():
            words[:] = bytes(len(words))
            words[forced[0] // 8] = 1 << forced[0] % 8
            return True
        masks = [self._mask_of(way, words) for way in self._ways]
        if len(masks) > 1:
            union = sum(masks[1:], masks[0])
            words[:] = union
        return self._is_possible(words)

    def accept(self, tokens: Sequence[int]) -> None:
        """Take note of tokens that were said."""
        for token in tokens:
            if self.problem or self.is_complete:
                return
            self._accept(token)

    def forced(self) -> list[int]:
        """Return the tokens that must come next whatever is drawn; not accepted yet."""
        if self._forced is None:
            self._forced = self._find_forced()
        return list(self._forced)
