"""The mask of one candidate: which tokens may come next.

Its state is a pure function of the tokens that it has accepted, like the rest of the text layer's,
so a resumed answer continues as it would have.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

from lmx_constraints.compiler import CompiledStage
from lmx_constraints.trial import first_line

if TYPE_CHECKING:
    from llguidance import LLMatcher

DEAD_END = "no token of the model's vocabulary may come next"


@define
class _Branch:
    """A candidate's position in one alternative.

    :ivar stages: the stage that it is in, and those after it.
    :ivar matcher: of the stage that it is in; None where any text may follow.
    :ivar tokens: how many it has accepted in this stage.
    :ivar is_complete: nothing may follow.
    :ivar has_advanced: the last token ended a stage.
    """

    stages: Sequence[CompiledStage]
    matcher: LLMatcher | None = field(default=None, init=False)
    tokens: int = field(default=0, init=False)
    is_complete: bool = field(default=False, init=False)
    has_advanced: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.stages:
            self._enter_stage()

    @property
    def due_closing(self) -> tuple[int, ...]:
        """The tokens that must close the stage, if it has reached its limit."""
        if self.matcher is None:
            return ()
        stage = self.stages[0].stage
        is_due = stage.max_tokens is not None and self.tokens >= stage.max_tokens
        return stage.closing if is_due else ()

    @property
    def is_reasoning(self) -> bool:
        """Whether it is in a stage that is reasoning."""
        return self.matcher is not None and self.stages[0].stage.is_reasoning

    def accept(self, token: int) -> bool:
        """Advance by a token; return False if this alternative does not allow it."""
        self.has_advanced = False
        if self.matcher is None:
            return True
        if self.is_complete or not self.matcher.consume_token(token):
            return False
        self.tokens += 1
        self._leave_stage()
        return True

    def _enter_stage(self) -> None:
        self.tokens = 0
        self.matcher = self.stages[0].matcher.deep_copy()
        self._leave_stage()

    def _leave_stage(self) -> None:
        """Enter the next stage if nothing more may follow in this one."""
        if self.matcher is None or self.matcher.is_error() or not self.matcher.is_stopped():
            return
        has_ended = self.matcher.stop_reason() == "EndOfSentence"
        if len(self.stages) > 1 and not has_ended:
            self.has_advanced = True
            self.stages = self.stages[1:]
            self._enter_stage()
        elif not has_ended and self.stages[0].stage.is_reasoning:
            self.has_advanced, self.matcher = True, None
        else:
            self.is_complete = True


class GrammarMask:
    """See :class:`lmx_kernel.text.constraints.CandidateMask`.

    :param alternatives: the compiled stages of each form that the answer may take.
    :ivar problem: why no token may follow although the answer is not complete; "" if one may.
    """

    def __init__(self, alternatives: Sequence[Sequence[CompiledStage]]) -> None:
        self.problem = ""
        self._branches = [_Branch(stages) for stages in alternatives]
        self._forced: list[int] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the answer ends here, because nothing may follow."""
        return all(branch.is_complete for branch in self._branches)

    def fill(self, row: Any) -> bool:
        """Write which tokens are allowed; return False where all are, or where none matters."""
        if self.problem or self.is_complete:
            return False
        forced = self.forced()
        if not forced and any(branch.matcher is None for branch in self._branches):
            return False
        words = memoryview(row).cast("B")
        if forced:
            words[:] = bytes(len(words))
            words[forced[0] // 8] = 1 << forced[0] % 8
        else:
            self._compute(words)
        return not self.problem

    def accept(self, tokens: Sequence[int]) -> None:
        """Advance by tokens of the answer."""
        for token in tokens:
            if self.problem or self.is_complete:
                return
            self._advance(token)

    def forced(self) -> list[int]:
        """Return the tokens that must come next whatever is drawn; they are not accepted yet."""
        if self._forced is None:
            self._forced = self._find_forced()
        return list(self._forced)

    def _compute(self, words: memoryview) -> None:
        """Write the tokens that any branch allows."""
        address = ctypes.addressof(ctypes.c_char.from_buffer(words))
        union = 0
        for branch in list(self._branches):
            assert branch.matcher is not None
            branch.matcher.unsafe_compute_mask_ptr(address, len(words))
            if branch.matcher.is_error():
                self._drop(branch, f"{DEAD_END}: {first_line(branch.matcher.get_error())}")
            elif len(self._branches) > 1:
                union |= int.from_bytes(words, "little")
        if union:
            words[:] = union.to_bytes(len(words), "little")
        if not bytes(words).strip(b"\0"):
            self.problem = DEAD_END

    def _advance(self, token: int) -> None:
        rest = self._forced[1:] if self._forced and self._forced[0] == token else []
        self._forced = rest or None
        for branch in list(self._branches):
            if not branch.accept(token):
                self._drop(branch, DEAD_END)
        # Once an alternative enters its next stage, drop the others, except during reasoning: a
        # trigger inside a thought starts no call.
        if not any(branch.is_reasoning for branch in self._branches):
            advanced = [branch for branch in self._branches if branch.has_advanced]
            self._branches = advanced or self._branches

    def _drop(self, branch: _Branch, reason: str) -> None:
        """Drop a branch; where it is the last one, the answer cannot go on."""
        if len(self._branches) > 1:
            self._branches.remove(branch)
        else:
            self.problem = reason

    def _find_forced(self) -> list[int]:
        first = self._branches[0]
        if self.problem or self.is_complete or first.matcher is None:
            return []
        closing = list(first.due_closing)
        if closing and first.matcher.validate_tokens(closing) == len(closing):
            return closing
        return first.matcher.compute_ff_tokens() if len(self._branches) == 1 else []
