"""Sampling as a client asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmx_kernel.types import SamplingRequest

LEAST_TOP_P = 1e-6  # 0 keeps the likeliest token only


def make_sampling(given: Mapping[str, Any]) -> SamplingRequest:
    """Return the sampling with fields as a client gave them, by the names of
    :class:`~lmx_kernel.types.SamplingRequest`.

    None stands for a field that was not given, which the settings of the model decide; a ``top_k``
    of -1, as 0, keeps all tokens; and a ``top_p`` of 0 keeps one.
    """
    fields = {name: value for name, value in given.items() if value is not None}
    if "top_k" in fields:
        fields["top_k"] = max(fields["top_k"], 0)
    if "top_p" in fields:
        fields["top_p"] = max(fields["top_p"], LEAST_TOP_P)
    return SamplingRequest(**fields)
