"""JSON whose texts can be written again."""

from __future__ import annotations

import json
from typing import Any


def parse(data: bytes) -> Any:
    """Return what ``data`` says.

    :raises UnicodeEncodeError: a text in it holds half a surrogate pair, so no answer that repeats
        it could be written.
    :raises ValueError: it is no JSON.
    :raises RecursionError: it is too deep.
    """
    value = json.loads(data)
    json.dumps(value, ensure_ascii=False).encode()
    return value
