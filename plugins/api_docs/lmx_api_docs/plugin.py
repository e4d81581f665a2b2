"""What this distribution adds to LMX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmx_api_docs.surfaces import DocumentSurface, PageSurface
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import ApiSurface

if TYPE_CHECKING:
    from lmx_kernel.kernel import Kernel


@hookimpl
def lmx_api_surfaces(kernel: Kernel) -> list[ApiSurface]:
    """The document and the page."""
    return [DocumentSurface(kernel), PageSurface()]
