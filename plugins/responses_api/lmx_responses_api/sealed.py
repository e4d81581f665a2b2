"""The field ``encrypted_content`` of reasoning: a text that clients only send back.

It is not secret, nor protected against changes: it is the reasoning itself, which the same client
gets in plain text anyway.
"""

from __future__ import annotations

import base64
import binascii

_PREFIX = "lmx1."


def seal(reasoning: str) -> str:
    """Return ``reasoning`` in one word of ASCII."""
    return _PREFIX + base64.urlsafe_b64encode(reasoning.encode()).decode()


def unseal(text: str) -> str | None:
    """Return the reasoning in ``text``; None if it was not made by :func:`seal`."""
    if not text.startswith(_PREFIX):
        return None
    try:
        return base64.urlsafe_b64decode(text.removeprefix(_PREFIX)).decode()
    except (binascii.Error, ValueError):
        return None
