"""The one argument of a custom tool, read while the model still writes its JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from attrs import define

from lmx_responses_api.toolbox import INPUT

_HEAD = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
# Whole characters and escapes. Half of a surrogate pair waits for the other half.
_WHOLE = re.compile(
    r"(?:[^\"\\]|\\[\"\\/bfnrt]"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}"
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*"
)


@define
class StringField:
    """The text of the field ``input``, as far as it is written.

    :ivar text: what :meth:`add` returned so far.
    """

    text: str = ""
    _json: str = ""
    _rest: str = ""
    _in_text: bool = False

    def add(self, written: str) -> str:
        """Take more of the JSON, and return how much more of the field's text is known by it."""
        self._json += written
        self._rest += written
        if not self._in_text:
            head = _HEAD.match(self._rest)
            if head is None:
                return ""
            self._rest, self._in_text = self._rest[head.end() :], True
        whole = _WHOLE.match(self._rest)
        assert whole is not None
        self._rest = self._rest[whole.end() :]
        more = _clean(json.loads(f'"{whole[0]}"', strict=False))
        self.text += more
        return more

    def finish(self) -> str:
        """Return what is missing in ``text`` when the JSON is complete. JSON that is not an object
        with the field alone is taken as the text itself, if nothing was returned before.
        """
        missing = self._value()
        if missing is None:
            missing = "" if self._in_text else self._json
        elif missing.startswith(self.text):
            missing = missing[len(self.text) :]
        else:
            missing = ""
        self.text += missing
        return missing

    def _value(self) -> str | None:
        try:
            found: Any = json.loads(self._json, strict=False)
        except ValueError:
            return None
        value = found.get(INPUT) if isinstance(found, dict) else None
        return _clean(value) if isinstance(value, str) else None


def _clean(text: str) -> str:
    """Return ``text`` without halves of surrogate pairs, which cannot be sent as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
