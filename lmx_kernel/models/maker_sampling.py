"""Sampling as the maker of a model wants it, from the model's own files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmx_kernel.types import SamplingRequest

OFF: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""The values that change nothing."""

_RANGES = {
    "temperature": (0.0, 100.0),
    "top_k": (-1, 1 << 31),
    "top_p": (1e-6, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-3, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "frequency_penalty": (-100.0, 100.0),
}
_DIGITS = 6
"""A file may hold float32: 0.95 is 0.949999988 there."""


def maker_sampling(found: Mapping[str, object], *, greedy: bool = False) -> SamplingRequest:
    """Return the sampling that a model's files ask for.

    A list that has some of the fields switches the others off, since the maker wrote it for
    programs without defaults like ours. Values that are not numbers in their range count as left
    out; they come from files, so nothing is raised.

    :param found: values by the names of :class:`~lmx_kernel.types.Sampling`; others are ignored.
    :param greedy: the files say that the likeliest token is always taken.
    :returns: without any field where the files say nothing.
    """
    values = {name: _number(found.get(name), *_RANGES[name]) for name in OFF}
    said = {name: value for name, value in values.items() if value is not None}
    if greedy:
        said["temperature"] = 0.0
    if not said:
        return SamplingRequest()
    fields = OFF | said
    return SamplingRequest(**fields | {"top_k": max(int(fields["top_k"]), 0)})


def _number(value: object, least: float, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return round(value, _DIGITS) if least <= value <= most else None
