"""What a plugin for structured output implements.

An entry point in the group ``lmx.constraints`` names a :class:`ConstraintEngineKind`, such as a
class. The worker of a model makes one engine for it when a request first needs one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from lmx_kernel.engine.protocol import Tokenizer, TokenMask
from lmx_kernel.text.formats.protocol import Format, offered_tools
from lmx_kernel.types import GenerationRequest


class CandidateMask(TokenMask, Protocol):
    """The mask of one candidate. Its state depends only on the tokens that it has accepted, so a
    new mask that accepts the same tokens continues a candidate after a crash or a preemption.
    """


class ConstraintPlan(Protocol):
    """What the answers to one request may be."""

    def mask(self) -> CandidateMask:
        """Return the mask of a new candidate."""
        ...


class ConstraintEngine(Protocol):
    """Constrains the answers of one model. Its process ends without notice, and what it has started
    must end with it.
    """

    def plan(self, request: GenerationRequest, prompt: str) -> ConstraintPlan | None:
        """Return what the answers to ``request`` may be; None for any text.

        Covers the request's constraint, its tools and tool choice, and its limit of reasoning.
        Called from several threads at once; it may take seconds, but must not hold the interpreter
        for more than a few milliseconds at a time, because other answers are decoded meanwhile.

        :param prompt: the end of the prompt's text: a template may have opened reasoning already.
        :raises InvalidSchemaError: a schema, pattern or grammar cannot be followed exactly, or
            costs too much.
        :raises InvalidRequestError: something else that the request asks for cannot be guaranteed.
        """
        ...


class ConstraintEngineKind(Protocol):
    """What an entry point names: a class of engines.

    Where it has an attribute ``takes_settings`` that is true, it gets the section ``constraints``
    of the config by the keyword ``settings``, as plain data; empty where no plugin registered one.
    """

    def __call__(
        self, tokenizer: Tokenizer, chat_format: Format, **section: Mapping[str, Any]
    ) -> ConstraintEngine:
        """Return the engine of a model with this vocabulary and chat format."""
        ...


def is_constrained(request: GenerationRequest) -> bool:
    """Return whether a constraint engine must be asked about the answers to a request."""
    return (
        request.constraint is not None
        or request.reasoning_tokens is not None
        or request.tool_choice.mode == "required"
        or bool(offered_tools(request))
    )
