"""Line numbers of the keys of a TOML document; tomllib does not report them."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

Key = tuple[str | int, ...]


def statement_ends(lines: Sequence[str]) -> list[int]:
    """Return 0, and the number of lines up to the end of each statement.

    A statement consists of whole lines and is a valid document by itself, so the shortest sequence
    of lines that tomllib parses is one: no syntax needs to be known here.
    """
    ends = [0]
    for end in range(1, len(lines) + 1):
        with suppress(ValueError, RecursionError):
            tomllib.loads("\n".join(lines[ends[-1] : end]))
            ends.append(end)
    return ends


def key_lines(text: str) -> dict[Key, int]:
    """Return the line of the statement that first contains each key. ``text`` must be valid."""
    lines = text.split("\n")
    found: dict[Key, int] = {}
    sizes: Counter[Key] = Counter()
    table: Key = ()
    for start, end in pairwise(statement_ends(lines)):
        value = tomllib.loads("\n".join(lines[start:end]))
        if lines[start].lstrip().startswith("["):
            table, value = _open_table(value, sizes), {}
        for key in _keys(value, table):
            for length in range(1, len(key) + 1):
                found.setdefault(key[:length], start + 1)
    return found


def _open_table(header: Any, sizes: Counter[Key]) -> Key:
    """Return the key of the table that a parsed header opens, counting arrays in ``sizes``."""
    key: Key = ()
    while header:
        ((part, header),) = header.items()
        key = (*key, part)
        if isinstance(header, list):
            sizes[key] += 1
            header = header[0]
        if sizes[key]:
            key = (*key, sizes[key] - 1)
    return key


def _keys(value: Any, key: Key) -> Iterator[Key]:
    yield key
    inner = enumerate(value) if isinstance(value, list) else ()
    for part, item in value.items() if isinstance(value, dict) else inner:
        yield from _keys(item, (*key, part))


def nearest_line(lines: Mapping[Key, int], key: Key) -> int | None:
    """Return the line of a key, or of the closest table around it."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key)
