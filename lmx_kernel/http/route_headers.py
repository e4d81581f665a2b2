"""The headers that say which model answers, and why that one."""

from __future__ import annotations

import re

from lmx_kernel.types import Route

MAX_HEADER_CHARS = 512


def route_headers(route: Route) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers for its route: the model; which router decided, and by which rule;
    and the models that were passed over, each with the reason.
    """
    by = "/".join(filter(None, (route.router, route.rule))) or "by name"
    skipped = "; ".join(f"{one.model}: {one.reason}" for one in route.skipped)
    text = f"{by}; skipped {skipped}" if skipped else by
    return [(b"x-lmx-model", _ascii(route.model)), (b"x-lmx-route", _ascii(text))]


def _ascii(text: str) -> bytes:
    return re.sub(r"[^ -~]", "?", text[:MAX_HEADER_CHARS]).encode()
