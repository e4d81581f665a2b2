"""Constraints of one model's answers, by llguidance: plan, check, compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from lmx_constraints.alternatives import FREE, AnswerSyntax, plan
from lmx_constraints.calls import CallGrammars
from lmx_constraints.checker import GrammarChecker
from lmx_constraints.compiler import CompiledStage, StageCompiler
from lmx_constraints.grammar import GrammarWriter, constraint_grammar, control_texts
from lmx_constraints.mask import GrammarMask
from lmx_kernel.engine import Tokenizer
from lmx_kernel.errors import InvalidSchemaError
from lmx_kernel.text.formats import Format
from lmx_kernel.types import ChatPrompt, Constraint, GenerationRequest


@frozen
class GrammarPlan:
    """The compiled alternatives of the answers to one request."""

    alternatives: Sequence[Sequence[CompiledStage]]

    def mask(self) -> GrammarMask:
        """Return the mask of a new candidate."""
        return GrammarMask(self.alternatives)


class GrammarEngine:
    """Implements :class:`lmx_kernel.text.constraints.ConstraintEngine`.

    A grammar is tried in a child process before it is compiled here, and compiled once for all the
    requests that have it. Its calls may come from any thread.

    :param settings: of :class:`lmx_constraints.settings.ConstraintSettings`, as plain data.
    """

    takes_settings = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_format: Format,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._is_open = bool(settings and settings["open_objects"])
        self._format = chat_format
        self._writer = GrammarWriter(tokenizer)
        self._checker = GrammarChecker(len(tokenizer.token_bytes), control_texts(tokenizer))
        self._calls = CallGrammars(chat_format, self._writer, self._checker, self._is_open)
        self._compiler = StageCompiler(tokenizer, chat_format.name)

    def plan(self, request: GenerationRequest, prompt: str) -> GrammarPlan | None:
        """Return what the answers to ``request`` may be; None for any text.

        :param prompt: the end of the prompt's text.
        :raises InvalidSchemaError: a schema, pattern or grammar cannot be followed exactly.
        :raises InvalidRequestError: a tool must be called and none can be, or a strict one cannot
            be held to its schema.
        """
        try:
            syntax = self._syntax(request, prompt)
        except RecursionError:
            raise InvalidSchemaError("a schema is nested too deeply", param="tools") from None
        alternatives = plan(request, syntax, self._writer)
        if alternatives == [FREE]:
            return None
        return GrammarPlan([tuple(map(self._compiler.compile, one.stages)) for one in alternatives])

    def close(self) -> None:
        """End the child process."""
        self._checker.close()

    def _syntax(self, request: GenerationRequest, prompt: str) -> AnswerSyntax:
        is_chat = isinstance(request.prompt, ChatPrompt)
        header = self._format.header(prompt) if is_chat else ""
        text = self._text(request.constraint)
        return AnswerSyntax(
            text=text,
            header=header,
            calls=self._calls.find(request, text, header),
            reasoning=self._format.thought(prompt) if is_chat else None,
        )

    def _text(self, constraint: Constraint | None) -> str | None:
        """Return the grammar of a constraint.

        :raises InvalidSchemaError: it cannot be followed.
        """
        if constraint is None:
            return None
        try:
            grammar = constraint_grammar(constraint, is_open=self._is_open)
        except InvalidSchemaError as error:
            problem = error.message
        else:
            problem = self._checker.problem_with(grammar)
        if problem:
            raise InvalidSchemaError(
                f"the {constraint.kind} cannot be followed: {problem}", param=constraint.param
            )
        return grammar
