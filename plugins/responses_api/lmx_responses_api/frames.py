"""Events as they are written, encoded but for their numbers: those are known later.

An event is encoded when it is made, since most of what a stream writes is the same again and again:
of the events that add text to one item only the numbers and the texts differ.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lmx_kernel.http.sse import encode_event

_encode = msgspec.json.Encoder().encode
_NUMBER = b'"sequence_number":'
_DELTA = b',"delta":'


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A server-sent event: what stands before its number, and after it."""

    before: bytes
    after: bytes

    @classmethod
    def of(cls, kind: str, **fields: Any) -> Frame:
        """Return the event of a type.

        :param fields: of its data, beside the type and the number.
        """
        data = _encode({"type": kind, "sequence_number": 0, **fields})
        before, _, after = encode_event(data, event=kind).partition(_NUMBER + b"0")
        return cls(before + _NUMBER, after)

    def numbered(self, number: int) -> bytes:
        """Return the event with its ``sequence_number``."""
        return b"%b%d%b" % (self.before, number, self.after)


class Deltas:
    """The events that add text to one item.

    :param kind: their type.
    :param fields: of their data, beside the type, the number and the text.
    """

    def __init__(self, kind: str, **fields: Any) -> None:
        self._empty = Frame.of(kind, delta="", **fields)
        self._rest = self._empty.after.removeprefix(_DELTA + b'""')

    def of(self, text: str) -> Frame:
        """Return the event that adds ``text``."""
        return Frame(self._empty.before, b"%b%b%b" % (_DELTA, _encode(text), self._rest))
