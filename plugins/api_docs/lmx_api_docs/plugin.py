"""What this distribution adds to LMX."""

from __future__ import annotations

from lmx_api_docs.surfaces import DocumentSurface, PageSurface
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface, Kernel


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The document and the page."""
    return [DocumentSurface(kernel), PageSurface()]
