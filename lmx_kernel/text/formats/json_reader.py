"""Calls that are written as JSON, read while they are written."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from attrs import define

from lmx_kernel.text.formats.protocol import CallArguments, CallEnded, CallStarted
from lmx_kernel.text.formats.reader import BrokenCallError, Reader, Reading, T

ARGUMENT_KEYS = ("arguments", "parameters")
OTHER_KEYS = ("id", "type")
MAX_DEPTH = 64
MAX_NAME_CHARS = 256


def read_calls(reader: Reader, names: Collection[str] | None = None) -> Reading[None]:
    """Read a call, or a list of calls: objects with a name and arguments.

    :param names: if given, an object that names anything else is no call.
    :raises BrokenCallError: the text is not of that form.
    """
    if not (yield from reader.starts("[")):
        return (yield from read_call(reader, names))
    while True:
        yield from reader.skip()
        yield from read_call(reader, names)
        yield from reader.skip()
        if not (yield from reader.starts(",")):
            yield from reader.starts("]")
            return None


def read_call(reader: Reader, names: Collection[str] | None = None) -> Reading[None]:
    """Read one call; see :func:`read_calls`."""
    name = arguments = None
    yield from reader.expect("{")
    while True:
        yield from reader.skip()
        key = yield from read_string(reader, MAX_NAME_CHARS)
        yield from reader.skip()
        yield from reader.expect(":")
        yield from reader.skip()
        if key == "name" and name is None:
            name = yield from _read_name(reader, names)
            yield CallStarted(name)
            if arguments is not None:
                yield CallArguments(arguments)
        elif key in ARGUMENT_KEYS and arguments is None:
            reading = read_arguments(reader)
            arguments = yield from _silently(reading) if name is None else reading
        elif key in OTHER_KEYS:
            yield from read_string(reader, MAX_NAME_CHARS)
        else:
            raise BrokenCallError
        yield from reader.skip()
        if not (yield from reader.starts(",")):
            break
    yield from reader.expect("}")
    if name is None:
        raise BrokenCallError
    if arguments is None:
        yield CallArguments("{}")
    yield CallEnded()


def read_arguments(reader: Reader) -> Reading[str]:
    """Pass a JSON object on as arguments while it is written; return all of it.

    Some models write the object as JSON text in a string, or null where there are no arguments.

    :raises BrokenCallError: something else comes, or it is not valid in the end.
    """
    first = yield from reader.peek()
    if first == "{":
        text = yield from _read_object(reader)
    else:
        text = "{}"
        if first == '"':
            text = yield from read_string(reader)
        else:
            yield from reader.expect("null")
        yield CallArguments(text)
    if not is_object(text):
        raise BrokenCallError
    return text


def read_string(reader: Reader, limit: int | None = None) -> Reading[str]:
    """Read a JSON string and return what it means.

    :raises BrokenCallError: something else comes, or more than ``limit`` characters.
    """
    yield from reader.expect('"')
    raw = ""
    while (char := (yield from reader.peek())) != '"':
        if not char or (limit is not None and len(raw) > limit):
            raise BrokenCallError
        raw += reader.take(1)
        if char == "\\":
            yield from reader.peek()
            raw += reader.take(1)
    reader.take(1)
    try:
        return msgspec.json.decode(f'"{raw}"', type=str)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BrokenCallError from error


def is_object(text: str) -> bool:
    """Return whether ``text`` is a JSON object."""
    try:
        msgspec.json.decode(text, type=dict)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _read_name(reader: Reader, names: Collection[str] | None) -> Reading[str]:
    name = yield from read_string(reader, MAX_NAME_CHARS)
    if not name or (names is not None and name not in names):
        raise BrokenCallError
    return name


def _read_object(reader: Reader) -> Reading[str]:
    whole, nesting = "", _Nesting()
    while True:
        if text := reader.take(nesting.length_of(reader.ahead)):
            whole += text
            yield CallArguments(text)
        if nesting.depth > MAX_DEPTH:
            raise BrokenCallError
        if nesting.depth == 0:
            return whole
        if not (yield from reader.more()):
            raise BrokenCallError


@define
class _Nesting:
    """Where in a JSON object its text stands."""

    depth: int = 0
    _is_string: bool = False
    _is_escaped: bool = False

    def length_of(self, text: str) -> int:
        """Go on by ``text``; return how much of it there is until the object ends."""
        for index, char in enumerate(text):
            if self._is_string:
                self._go_on_in_string(char)
            elif char == '"':
                self._is_string = True
            elif char in "{[}]":
                self.depth += 1 if char in "{[" else -1
                if self.depth == 0 or self.depth > MAX_DEPTH:
                    return index + 1
        return len(text)

    def _go_on_in_string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        else:
            self._is_escaped, self._is_string = char == "\\", char != '"'


def _silently(reading: Reading[T]) -> Reading[T]:
    """Read, and drop the pieces; the result has it all."""
    while True:
        try:
            piece = next(reading)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if piece is None:
            yield None
