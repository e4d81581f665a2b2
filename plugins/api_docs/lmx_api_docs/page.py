"""Content that a client may keep: served with an ``ETag``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import falcon
from attrs import frozen
from falcon.asgi import Request, Response

from lmx_kernel.errors import NotFoundError


@frozen
class Page:
    """What is sent, its kind, and the tag that tells whether a client has it already."""

    data: bytes
    content_type: str
    etag: str

    @classmethod
    def of(cls, data: bytes, content_type: str) -> Page:
        """Return a page of ``data``."""
        return cls(data, content_type, hashlib.sha256(data).hexdigest()[:32])

    @classmethod
    def read(cls, path: Path, content_type: str) -> Page:
        """Return a file as a page."""
        return cls.of(path.read_bytes(), content_type)

    def send(self, req: Request, resp: Response) -> None:
        """Fill ``resp`` with the page, or with word that the client's own is the same."""
        resp.etag = self.etag
        resp.cache_control = ["no-cache"]
        if any(tag in ("*", self.etag) for tag in req.if_none_match or ()):
            resp.status = falcon.HTTP_NOT_MODIFIED
            return
        resp.content_type = self.content_type
        resp.data = self.data


@frozen
class Pages:
    """Some pages, the one called "" at the path itself."""

    by_name: Mapping[str, Page]

    async def on_get(self, req: Request, resp: Response, name: str = "") -> None:
        """Send one of them."""
        if name not in self.by_name:
            raise NotFoundError(f"no {name}; there are: {', '.join(filter(None, self.by_name))}")
        self.by_name[name].send(req, resp)
