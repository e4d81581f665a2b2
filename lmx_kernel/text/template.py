"""Chat templates: messages to prompt text, in a sandbox.

A template comes with the model, so it is untrusted code: it runs in the worker, on immutable data,
and its output is capped. The extensions and globals are those that templates expect of the
Hugging Face renderer (transformers, `apply_chat_template`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.types import Message

MAX_OUTPUT_CHARS = 4 * 1024 * 1024


class _RefusalError(Exception):
    """A template called ``raise_exception``."""


def _raise_exception(message: str) -> NoReturn:
    raise _RefusalError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _tojson(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


class _Generation(Extension):
    """The tag that marks assistant text for training; here its body is just text."""

    tags = {"generation"}  # noqa: RUF012 - the base class wants a set

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class ChatTemplate:
    """A model's chat template, compiled once.

    :param source: Jinja source.
    :param texts: what the template may say for special tokens, such as ``bos_token``.
    :raises InvalidRequestError: the source does not compile.
    """

    def __init__(self, source: str, texts: dict[str, str]) -> None:
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise InvalidRequestError(f"the model's chat template is broken: {error}") from error
        self._texts = texts

    def render(self, messages: Iterable[Message]) -> str:
        """Return the prompt text, ready for the assistant's turn.

        :raises InvalidRequestError: the template refuses these messages, fails, or writes too much.
        """
        plain = [
            {"role": message.role, "content": "".join(part.text for part in message.parts)}
            for message in messages
        ]
        pieces = self._template.generate(messages=plain, add_generation_prompt=True, **self._texts)
        try:
            return _join_capped(pieces)
        except _RefusalError as refusal:
            raise InvalidRequestError(
                f"the model's chat template refuses these messages: {refusal}", param="messages"
            ) from refusal
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise InvalidRequestError(
                f"the model's chat template failed: {error}", param="messages"
            ) from error


def _join_capped(pieces: Iterable[str]) -> str:
    kept, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_OUTPUT_CHARS:
            raise InvalidRequestError("the model's chat template writes without end")
        kept.append(piece)
    return "".join(kept)
