"""What this distribution adds to LMX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmx_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from lmx_kernel.interfaces import ApiSurface, Kernel


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The document and the page."""
    from lmx_api_docs.surfaces import (  # noqa: PLC0415 - commands serve nothing
        DocumentSurface,
        PageSurface,
    )

    return [DocumentSurface(kernel), PageSurface()]
