"""Chat formats: how models write the parts of their answers.

Models mark reasoning and calls in ways of their own. A format is an entry point in the group
``lmx.formats``; it is chosen by the model's chat template, and its parser reads the answer as it is
generated. :class:`~lmx_kernel.text.formats.chat_format.ChatFormat` is a base for formats.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any, Protocol

from attrs import frozen

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import FORMAT_GROUP
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.types import ChatPrompt, GenerationRequest, Message, Tool


@frozen
class Text:
    """Visible text of the answer."""

    text: str


@frozen
class Reasoning:
    """More of the reasoning before the answer."""

    text: str


@frozen
class CallStarted:
    """The model begins to call a tool."""

    name: str


@frozen
class CallArguments:
    """More of the JSON text of the arguments of the call that began last."""

    text: str


@frozen
class CallEnded:
    """The call that began last is complete, and its arguments are a JSON object."""


Piece = Text | Reasoning | CallStarted | CallArguments | CallEnded


@frozen(kw_only=True)
class CallSyntax:
    """How calls are written, for constrained decoding.

    :param triggers: texts (or control tokens) that begin a call wherever they occur in an answer,
        and occur in nothing else.
    :param grammar: Lark rules as the mask's library reads them, of which ``calls`` is one or more
        complete calls. It may begin with any of the triggers. Each of the format's marks that
        occurs in it is a literal of its own, so that a control token can be put in its place.
    :param bare: for models that also answer with nothing but a call, without any mark: a pattern of
        how such an answer begins, as far as nothing else begins so, and the text in ``calls`` that
        this stands for.
    """

    triggers: tuple[str, ...]
    grammar: str
    bare: tuple[str, str] | None = None


class Parser(Protocol):
    """Reads one candidate's text. It never raises, whatever the text is.

    :ivar marks: texts of control tokens that it reads; they do not end the answer.
    :ivar is_thinking: whether what comes next is reasoning.
    """

    marks: Sequence[str]

    @property
    def is_thinking(self) -> bool: ...

    def feed(self, text: str) -> Iterable[Piece]:
        """Return what ``text`` completes, holding back what is not decided yet.

        The pieces of all texts together do not depend on where they were cut.
        """
        ...

    def flush(self) -> Iterable[Piece]:
        """Return what was held back, at the end."""
        ...


class Format(Protocol):
    """The chat format of one model.

    :ivar explains_tools: whether :meth:`explain` is used even where the template knows tools.
    """

    name: str
    explains_tools: bool

    def parser(self, prompt: str, tools: Sequence[Tool] = ()) -> Parser:
        """Return a parser for one candidate.

        :param prompt: the end of the prompt's text, in which reasoning may have been opened.
        :param tools: what the model may call; without any, what looks like a call is text.
        """
        ...

    def thought(self, prompt: str) -> tuple[str, str] | None:
        """Return the texts around the reasoning that an answer to ``prompt`` may begin with ("" for
        an opening that the prompt has already); None if the model does not reason first.
        """
        ...

    def header(self, prompt: str) -> str:
        """Return what stands before the text of an answer to ``prompt``, such as a header."""
        ...

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax | None:
        """Return how ``tools`` are called, and one after the other if ``parallel``; None if this
        format has no calls.
        """
        ...

    def explain(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Sequence[Message]:
        """Return ``messages`` with the tools, the calls and their results as plain text, as far as
        the template does not write them; it gets no tools then.
        """
        ...

    def template_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a request's options by the names that the chat template knows."""
        ...


class FormatKind(Protocol):
    """What an entry point names: a class of formats."""

    def matches(self, template: str) -> int:
        """Return how well a chat template fits this format; 0 for not at all."""
        ...

    def __call__(self, template: str) -> Format:
        """Return the format of a model with this chat template."""
        ...


class PlainFormat:
    """Everything is text."""

    name = "plain"
    explains_tools = False

    def parser(self, prompt: str = "", tools: Sequence[Tool] = ()) -> Parser:
        return _PlainParser()

    def thought(self, prompt: str) -> tuple[str, str] | None:
        return None

    def header(self, prompt: str) -> str:
        return ""

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> CallSyntax | None:
        return None

    def explain(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Sequence[Message]:
        return messages

    def template_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return options


class _PlainParser:
    marks: Sequence[str] = ()
    is_thinking = False

    def feed(self, text: str) -> Iterable[Piece]:
        return (Text(text),) if text else ()

    def flush(self) -> Iterable[Piece]:
        return ()


def offered_tools(request: GenerationRequest) -> tuple[Tool, ...]:
    """Return the tools that the model is offered."""
    if not isinstance(request.prompt, ChatPrompt) or request.tool_choice.mode == "none":
        return ()
    return request.prompt.tools


def find_format(template: str | None, name: str = "") -> Format:
    """Return the installed format that fits ``template`` best; the plain one if none does.

    Of two that fit alike the first by name is taken, so the choice does not depend on the order of
    installation.

    :param name: of the format to take, whatever it fits; "" chooses by the template.
    :raises ModelUnusableError: there is none of that name, or it cannot be loaded.
    """
    if name:
        return _named_format(template or "", name)
    if template is None:
        return PlainFormat()
    entries = sorted(entry_points(FORMAT_GROUP), key=lambda entry: entry.name)
    kinds = [(kind.matches(template), kind) for kind in _loaded(entries)]
    best, kind = max(kinds, key=lambda found: found[0], default=(0, None))
    return kind(template) if kind and best else PlainFormat()


def _named_format(template: str, name: str) -> Format:
    if name == PlainFormat.name:
        return PlainFormat()
    for kind in _loaded(entry_points(FORMAT_GROUP, name)):
        return kind(template)
    raise ModelUnusableError(f"there is no chat format {name!r}")


def _loaded(entries: Sequence[EntryPoint]) -> Iterator[FormatKind]:
    for entry in entries:
        try:
            yield entry.load()
        except (Exception, SystemExit):  # noqa: BLE001 - a broken plugin must not cost the model
            traceback.print_exc()
