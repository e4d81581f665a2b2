"""Finding the installed constraint engine, and what is refused where there is none."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from lmx_kernel.engine.protocol import Tokenizer
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.hookspecs import CONSTRAINT_GROUP
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.text.constraints.protocol import ConstraintEngine
from lmx_kernel.text.formats.protocol import Format, offered_tools
from lmx_kernel.types import ChatPrompt, GenerationRequest


def find_engine(
    tokenizer: Tokenizer, chat_format: Format, settings: Mapping[str, Any] | None = None
) -> ConstraintEngine:
    """Return the engine of the installed plugin for structured output; of several, the first by
    name that loads. Where none does, the engine refuses what cannot be guaranteed.

    :param settings: the section ``constraints`` of the config, for engines that take it.
    """
    entries = sorted(entry_points(CONSTRAINT_GROUP), key=lambda entry: entry.name)
    for entry in entries:
        try:
            kind = entry.load()
            section = {"settings": settings} if getattr(kind, "takes_settings", False) else {}
            engine: ConstraintEngine = kind(tokenizer, chat_format, **section)
        except (Exception, SystemExit):  # noqa: BLE001 - a broken plugin must not end the worker
            traceback.print_exc()
        else:
            return engine
    return MissingEngine(chat_format, is_broken=bool(entries))


@frozen
class MissingEngine:
    """Stands in for a constraint engine: it constrains nothing, and refuses what would need it.

    Calls that a model may but need not make are let through: the chat format reads them, and their
    arguments are a JSON object, which may not fit the tool's schema.
    """

    _format: Format
    is_broken: bool = False

    def plan(self, request: GenerationRequest, prompt: str) -> None:
        """Check that nothing about the answers to ``request`` must be guaranteed.

        :raises InvalidRequestError: something must.
        """
        for param, what in self._needs(request, prompt):
            raise InvalidRequestError(f"{what}: {self._reason}", param=param)

    @property
    def _reason(self) -> str:
        if self.is_broken:
            return "the plugin for structured output could not be loaded"
        return "no plugin for structured output is installed"

    def _needs(self, request: GenerationRequest, prompt: str) -> Iterator[tuple[str | None, str]]:
        """Yield what must be guaranteed, and the field that asks for it."""
        choice = request.tool_choice
        if request.constraint is not None:
            kind = request.constraint.kind
            yield request.constraint.param, f"the answer cannot be held to a {kind}"
        if choice.mode == "required":
            yield "tool_choice", "a call cannot be required"
        if offered_tools(request) and choice.names:
            yield "tool_choice", "calls cannot be limited to some of the tools"
        if any(tool.strict for tool in offered_tools(request)):
            yield "tools", "calls cannot be held to the schema of a strict tool"
        if request.reasoning_tokens is not None and self._reasons(request, prompt):
            yield None, "reasoning cannot be limited"

    def _reasons(self, request: GenerationRequest, prompt: str) -> bool:
        is_chat = isinstance(request.prompt, ChatPrompt)
        return is_chat and self._format.thought(prompt) is not None
