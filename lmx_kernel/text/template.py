"""Chat templates: messages to prompt text.

A template comes with the model. The form in which it takes messages differs between models and is
written nowhere; so it is tried, once, with small conversations (:mod:`lmx_kernel.text.habits`), and
what a template cannot take is folded into what it can (:mod:`lmx_kernel.text.folding`).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from attrs import evolve
from jinja2 import meta

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.text.folding import Step, fold
from lmx_kernel.text.formats.protocol import Format, PlainFormat
from lmx_kernel.text.habits import PROBE, PROBE_TOOL, Habits, lost, probe_habits, skeleton
from lmx_kernel.text.meter import ExhaustedError, metered
from lmx_kernel.text.sandbox import RefusalError, Sandbox, render
from lmx_kernel.text.turns import CallStyle, as_dicts, described
from lmx_kernel.types import Message, Tool

MAX_KNOWN_SHAPES = 256
TOLD_ARGUMENTS = "Its arguments, as JSON schema: "


class ChatTemplate:
    """A model's chat template, compiled once. May be called from any thread.

    :param source: Jinja source.
    :param texts: the texts of special tokens by the template's names for them, such as
        ``bos_token``.
    :raises InvalidRequestError: the source does not compile.
    """

    def __init__(self, source: str, texts: Mapping[str, str]) -> None:
        sandbox = Sandbox()
        try:
            self._template = sandbox.compiled(source)
            self._names = meta.find_undeclared_variables(sandbox.parse(source))
        except Exception as error:  # the compiler was not made for foreign code
            raise InvalidRequestError(
                f"the model's chat template is broken: {_reason(error)}", param="messages"
            ) from error
        self._texts = texts
        self._known_habits: Habits | None = None
        self._known_shapes: dict[Hashable, frozenset[Step]] = {}

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        options: Mapping[str, Any] | None = None,
        chat_format: Format | None = None,
    ) -> str:
        """Return the prompt text, ready for the assistant's turn. Every message is in it.

        :param options: more names for the template; they replace none of the usual ones.
        :param chat_format: explains tools where the template does not, and knows the template's
            names for the options.
        :raises InvalidRequestError: the template refuses these messages or leaves one out, whatever
            they are folded into; or it fails, or does not end.
        """
        chat_format = chat_format or PlainFormat()
        try:
            with metered():
                steps = self._steps(messages, bool(tools), chat_format)
                messages, tools = self._adapted(messages, tools, chat_format, steps)
                return self._render(messages, tools, chat_format.template_options(options or {}))
        except InvalidRequestError:
            raise
        except RefusalError as refusal:
            raise InvalidRequestError(
                f"the model's chat template refuses these messages: {_reason(refusal)}",
                param="messages",
            ) from refusal
        except Exception as error:  # foreign code fails in any way it likes
            raise InvalidRequestError(
                f"the model's chat template failed: {_reason(error)}", param="messages"
            ) from error

    # --- folding ---

    def _steps(
        self, messages: Sequence[Message], has_tools: bool, chat_format: Format
    ) -> frozenset[Step]:
        """Return the steps after which every message of such a conversation is written."""
        bare = skeleton(messages)
        shape = (bare, has_tools, chat_format)
        steps = self._known_shapes.get(shape)
        if steps is None:
            steps = self._found_steps(bare, [PROBE_TOOL] if has_tools else [], chat_format)
            if len(self._known_shapes) >= MAX_KNOWN_SHAPES:
                self._known_shapes = {}
            self._known_shapes[shape] = steps
        return steps

    def _found_steps(
        self, bare: Sequence[Message], tools: Sequence[Tool], chat_format: Format
    ) -> frozenset[Step]:
        problem: Exception | None = None
        for steps in self._habits.attempts:
            try:
                text = self._write(*self._adapted(bare, tools, chat_format, steps))
            except ExhaustedError:
                raise
            except Exception as error:  # noqa: BLE001 - foreign code; raised below
                problem = problem or error
                continue
            index = lost(bare, text)
            if index is None:
                return steps
            where = f"messages[{index}]"
            problem = problem or InvalidRequestError(
                f"{where}: the model's chat template leaves this message of the role "
                f"{bare[index].role!r} out",
                param=where,
            )
        raise problem or RuntimeError("there are no steps to try")

    def _adapted(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        chat_format: Format,
        steps: frozenset[Step],
    ) -> tuple[Sequence[Message], Sequence[Tool]]:
        """Return what the template gets in place of ``messages`` and ``tools``."""
        if not self._habits.knows_developer:
            messages = list(map(_as_system, messages))
        messages, tools = self._explained(messages, tools, chat_format)
        return fold(messages, steps), tools

    def _explained(
        self, messages: Sequence[Message], tools: Sequence[Tool], chat_format: Format
    ) -> tuple[Sequence[Message], Sequence[Tool]]:
        """Return messages that explain the tools, and no tools, where the template does not."""
        uses_tools = tools or any(each.tool_calls or each.role == "tool" for each in messages)
        knows_tools = "tools" in self._names and self._habits.calls is not None
        if uses_tools and (chat_format.explains_tools or not knows_tools):
            return chat_format.explain(messages, tools), ()
        return messages, tools

    # --- rendering ---

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Tool], options: Mapping[str, Any]
    ) -> str:
        try:
            return self._write(messages, tools, options)
        except ExhaustedError:
            raise
        except Exception:
            told = list(map(self._told, tools))
            if told == list(tools):
                raise
            return self._write(messages, told, options)

    def _told(self, tool: Tool) -> Tool:
        """Return a tool whose parameters are told in its description, if the template cannot write
        them.
        """
        if self._try([{"role": "user", "content": PROBE}], [tool]) or not tool.parameters:
            return tool
        schema = json.dumps(tool.parameters, ensure_ascii=False)
        description = f"{tool.description}\n\n{TOLD_ARGUMENTS}{schema}".lstrip()
        return evolve(tool, description=description, parameters={})

    def _write(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        style, as_parts = self._habits.calls or CallStyle(), self._habits.parts
        return self._write_dicts(
            list(as_dicts(messages, style, as_parts=as_parts)), tools, options or {}
        )

    def _write_dicts(
        self, messages: list[dict[str, Any]], tools: Sequence[Tool], options: Mapping[str, Any]
    ) -> str:
        names = {**options, **self._texts}
        names |= {"messages": messages, "add_generation_prompt": True}
        if tools:
            names["tools"] = list(map(described, tools))
        return render(self._template, names)

    @property
    def _habits(self) -> Habits:
        # functools.cached_property would let all threads wait for one that does not end
        if self._known_habits is None:
            self._known_habits = probe_habits(self._try)
        return self._known_habits

    def _try(self, messages: list[dict[str, Any]], tools: Sequence[Tool] = ()) -> str:
        """Return what comes of a conversation; "" if the template does not take it."""
        try:
            return self._write_dicts(messages, tools, {})
        except ExhaustedError:
            raise
        except Exception:  # noqa: BLE001 - the answer is no, whatever it says
            return ""


def _as_system(message: Message) -> Message:
    return evolve(message, role="system") if message.role == "developer" else message


def _reason(error: Exception) -> str:
    return str(error)[:300] or type(error).__name__
