"""Lets only those requests pass that have a header with a password."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from attrs import frozen

from lmx_kernel.api import (
    Context,
    ForbiddenError,
    HttpRequest,
    LmxError,
    SettingsSection,
    hookimpl,
)

HEADER = "x-kept"


@frozen(kw_only=True)
class KeptSettings:
    """Section ``[kept]``.

    :ivar password: without one nobody passes.
    """

    password: str = ""


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """The section ``[kept]``."""
    return [SettingsSection("kept", KeptSettings)]


@hookimpl
def lmx_authorize(request: HttpRequest, context: Context) -> LmxError | None:
    """Return why a request is refused, or None.

    Called on the event loop for each request but those to the health paths: it must be fast. If it
    raises, the request is refused. Names of headers are in lower case.
    """
    expected = context.settings.get(KeptSettings).password
    found = request.headers.get(HEADER, "")
    if expected and hmac.compare_digest(found.encode(), expected.encode()):
        return None
    return ForbiddenError(f"the header {HEADER} is missing or wrong")
