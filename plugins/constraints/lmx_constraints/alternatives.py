"""The forms that an answer may take: alternatives, each a row of stages. Nothing is compiled here.

A stage has a grammar of its own (reasoning, text until a call, the calls), so that the parts of a
model's answers are compiled once and a request compiles only the schema that it brought.
"""

from __future__ import annotations

from attrs import frozen

from lmx_constraints.grammar import GrammarWriter, pattern_after_space
from lmx_kernel.text.formats import CallSyntax
from lmx_kernel.types import GenerationRequest


@frozen(kw_only=True)
class Stage:
    """One part of an answer. The next part begins where nothing more may follow in this one.

    :param grammar: what the part may be.
    :param prefix: its first tokens, where the stage before it has consumed these already.
    :param is_reasoning: it is reasoning, which comes before the answer itself.
    :param max_tokens: after so many tokens it is closed; None for no limit.
    :param closing: the tokens that close it.
    """

    grammar: str
    prefix: tuple[int, ...] = ()
    is_reasoning: bool = False
    max_tokens: int | None = None
    closing: tuple[int, ...] = ()


@frozen
class Alternative:
    """One form of an answer: the stages that it passes through, in order.

    Any text may follow after a last stage that is reasoning, and where there are no stages.
    """

    stages: tuple[Stage, ...] = ()


FREE = Alternative()
"""Any text."""


@frozen
class CallGrammar:
    """How the tools of one request are called.

    :param grammar: of the whole answer, from the first call on; it may allow a constrained text in
        place of calls.
    """

    syntax: CallSyntax
    grammar: str


@frozen(kw_only=True)
class AnswerSyntax:
    """The grammars and texts that an answer to one request is made of.

    :param text: the grammar of its text; None for any text.
    :param header: what the model's format writes before the text.
    :param calls: how tools are called; None where none can be.
    :param reasoning: the opening and the closing of reasoning, with "" for an opening that the
        prompt has already; None if the answer begins with none.
    """

    text: str | None = None
    header: str = ""
    calls: CallGrammar | None = None
    reasoning: tuple[str, str] | None = None


def plan(
    request: GenerationRequest, syntax: AnswerSyntax, writer: GrammarWriter
) -> list[Alternative]:
    """Return the forms that an answer to ``request`` may take; ``[FREE]`` for any text."""
    answers = _answers(request, syntax, writer)
    limit = request.reasoning_tokens
    if syntax.reasoning is None or (answers == [FREE] and limit is None):
        return answers
    opening, closing = syntax.reasoning
    reasoning = Stage(
        grammar=writer.until(closing, opening=opening, may_end=answers == [FREE]),
        is_reasoning=True,
        max_tokens=None if limit is None else limit + len(writer.tokens(opening)),
        closing=writer.tokens(closing),
    )
    reasoned = [Alternative((reasoning, *answer.stages)) for answer in answers]
    return [*reasoned, *answers] if opening else reasoned


def _answers(
    request: GenerationRequest, syntax: AnswerSyntax, writer: GrammarWriter
) -> list[Alternative]:
    """Return the forms of an answer without its reasoning."""
    if syntax.calls is None:
        if syntax.text is None:
            return [FREE]
        return [Alternative((Stage(grammar=writer.after(syntax.header, syntax.text)),))]
    if syntax.text is not None or request.tool_choice.mode == "required":
        return [Alternative((Stage(grammar=syntax.calls.grammar),))]
    return _text_before_calls(syntax.calls, writer)


def _text_before_calls(calls: CallGrammar, writer: GrammarWriter) -> list[Alternative]:
    """Return the forms of an answer that is any text until a call begins: one for each text that
    begins a call.
    """
    syntax, found = calls.syntax, []
    for trigger in syntax.triggers:
        text = Stage(grammar=writer.until(trigger, may_end=True))
        begun = Stage(grammar=calls.grammar, prefix=writer.tokens(trigger))
        found.append(Alternative((text, begun)))
    if syntax.bare is not None:
        pattern, start = syntax.bare
        text = Stage(grammar=pattern_after_space(pattern))
        begun = Stage(grammar=calls.grammar, prefix=writer.tokens(start))
        found.append(Alternative((text, begun)))
    return found if syntax.triggers else [*found, FREE]
