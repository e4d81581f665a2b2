"""The document and the page as the kernel's HTTP server sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import falcon
import msgspec
from falcon.asgi import Request, Response

from lmx_api_docs.document import build
from lmx_api_docs.page import Page, Pages
from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import ApiSurface, Kernel, Operation

DOCUMENT = "/openapi.json"
PAGE = "/docs"


class _Surface:
    scope = ""

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return code and message."""
        return {"error": {"code": error.code, "message": error.message}}


class DocumentSurface(_Surface):
    """The description of all APIs, for programs."""

    name = "openapi"
    prefix = DOCUMENT

    def __init__(self, kernel: Kernel) -> None:
        self._document = Document(kernel)

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        return [(DOCUMENT, self._document)]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        summary = "This document"
        return [Operation(method="GET", path=DOCUMENT, summary=summary, result=dict[str, Any])]

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        return f"curl {url}{DOCUMENT}"


class Document:
    """Describes the surfaces that are served. Made when it is first asked for."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._surfaces: Sequence[ApiSurface] | None = None
        self._page: Page

    async def on_get(self, req: Request, resp: Response) -> None:
        """Send it."""
        if self._surfaces is not self._kernel.surfaces:
            self._surfaces = self._kernel.surfaces
            self._page = Page.of(msgspec.json.encode(build(self._surfaces)), falcon.MEDIA_JSON)
        self._page.send(req, resp)


class PageSurface(_Surface):
    """The description of all APIs, to read and to try."""

    name = "docs"
    prefix = PAGE

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        # To import offapi would load all that it has.
        swagger = Path(str(distribution("offapi").locate_file("offapi")))
        pages = Pages(
            {
                "": Page.read(Path(__file__).with_name("page.html"), falcon.MEDIA_HTML),
                "swagger.css": Page.read(swagger / "swagger_style.css", "text/css"),
                "swagger.js": Page.read(swagger / "swagger_bundle.js", falcon.MEDIA_JS),
            }
        )
        return [(PAGE, pages), (PAGE + "/{name}", pages)]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return [
            Operation(method="GET", path=PAGE, summary="A page to read and try it", result=str),
            Operation(method="GET", path=PAGE + "/{name}", summary="Its parts", result=str),
        ]

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        return f"python3 -m webbrowser {url}{PAGE}"
