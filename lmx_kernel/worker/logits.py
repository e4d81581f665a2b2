"""Finds the logits processors that a request names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from lmx_kernel.engine.protocol import LogitsKind, LogitsProcessor, Tokenizer
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.hookspecs import LOGITS_GROUP
from lmx_kernel.plugins.entry_points import entry_points

PARAM = "logits_processors"


def make_processors(
    wanted: Mapping[str, Mapping[str, Any]], tokenizer: Tokenizer
) -> dict[str, LogitsProcessor]:
    """Return the processors of one request, in its order.

    :param wanted: the options of each, by its name.
    :raises InvalidRequestError: no plugin offers one of them, or it refuses its options.
    """
    made = {}
    for name, options in wanted.items():
        try:
            made[name] = _kind(name)(options, tokenizer)
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(
                f"{PARAM}.{name}: {error}", param=f"{PARAM}.{name}"
            ) from error
    return made


@cache
def _kind(name: str) -> LogitsKind:
    for entry in entry_points(LOGITS_GROUP, name):
        kind: LogitsKind = entry.load()
        return kind
    raise InvalidRequestError(
        f"{PARAM}: there is none called {name[:64]}", param=f"{PARAM}.{name[:64]}"
    )
