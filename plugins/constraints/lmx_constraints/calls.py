"""Tools as grammars: as much of each tool's schema as the library can follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve, frozen

from lmx_constraints.alternatives import CallGrammar
from lmx_constraints.checker import Budget, GrammarChecker
from lmx_constraints.grammar import MAX_SOURCE_CHARS, GrammarWriter, json_grammar
from lmx_constraints.json_schema import (
    with_any_parameters,
    without_absurd_bounds,
    without_patterns,
)
from lmx_kernel.errors import InvalidRequestError, InvalidSchemaError
from lmx_kernel.text.formats import Format, offered_tools
from lmx_kernel.text.formats.json_schema import arguments_schema
from lmx_kernel.types import GenerationRequest, Tool


@frozen
class CallGrammars:
    """Finds grammars of calls that are safe to compile."""

    _format: Format
    _writer: GrammarWriter
    _checker: GrammarChecker
    _is_open: bool = False

    def find(self, request: GenerationRequest, text: str | None, header: str) -> CallGrammar | None:
        """Return how the tools of a request are called; None if no call can be constrained.

        :param text: the grammar of a text that may come in place of calls.
        :param header: what comes before that text.
        :raises InvalidSchemaError: the schema of a strict tool cannot be followed.
        :raises InvalidRequestError: a tool must be called and none can be, or a strict one cannot
            be held to its schema.
        """
        choice = request.tool_choice
        tools = [
            without_absurd_bounds(tool)
            for tool in offered_tools(request)
            if not choice.names or tool.name in choice.names
        ]
        must = choice.mode == "required"
        for attempt in self._attempts(tools):
            syntax = self._format.calls(attempt, parallel=request.parallel_tool_calls)
            if syntax is None:
                break
            grammar = self._writer.calls(syntax, None if must else text, header)
            if not self._checker.problem_with(grammar):
                return CallGrammar(syntax, grammar)
        if must:
            raise InvalidRequestError("none of these tools can be called here", param="tool_choice")
        if any(tool.strict for tool in tools):
            raise InvalidRequestError(
                "this model's calls cannot be held to the schema of a strict tool", param="tools"
            )
        return None

    def _attempts(self, tools: Sequence[Tool]) -> Iterator[Sequence[Tool]]:
        """Yield the tools with the schemas that can be followed one by one; then, since together
        they may still cost too much, without the schemas of all tools that are not strict.

        :raises InvalidSchemaError: the schema of a strict tool cannot be followed.
        """
        budget = Budget()
        followed = [self._loosened(tool, budget) for tool in tools]
        if followed:
            yield followed
            yield [tool if tool.strict else with_any_parameters(tool) for tool in followed]

    def _loosened(self, tool: Tool, budget: Budget) -> Tool:
        """Return a tool with as much of its schema as can be followed within the budget."""
        try:
            exact = evolve(tool, parameters=arguments_schema(tool, is_open=self._is_open))
            problem = self._problem_with(exact, budget)
        except InvalidSchemaError as error:
            exact, problem = with_any_parameters(tool), error.message
        if not problem:
            return exact
        if tool.strict:
            raise InvalidSchemaError(
                f"the parameters of {tool.name} cannot be followed: {problem}", param="tools"
            )
        looser = without_patterns(exact)
        return with_any_parameters(tool) if self._problem_with(looser, budget) else looser

    def _problem_with(self, tool: Tool, budget: Budget) -> str:
        grammar = json_grammar(tool.parameters, is_lenient=not tool.strict)
        if len(grammar) > MAX_SOURCE_CHARS:
            return f"it is longer than {MAX_SOURCE_CHARS} characters"
        return self._checker.problem_with(grammar, budget)
