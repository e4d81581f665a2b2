"""One path for several dialects: the request's headers say which of them answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from falcon import COMBINED_METHODS
from falcon.asgi import Request, Response


def header_switch(resource: object, by_header: Mapping[str, object]) -> object:
    """Return a falcon resource that passes each request on: to the resource of the first header
    that it has, if that one takes its method; else to ``resource``.
    """
    names = [f"on_{method.lower()}" for method in COMBINED_METHODS]
    return SimpleNamespace(
        **{
            name: _responder(name, default, by_header)
            for name in names
            if (default := getattr(resource, name, None)) is not None
        }
    )


def _responder(name: str, default: Any, by_header: Mapping[str, object]) -> Any:
    others = {
        header: responder
        for header, resource in by_header.items()
        if (responder := getattr(resource, name, None)) is not None
    }

    async def respond(req: Request, resp: Response, **params: Any) -> None:
        responder = next((others[header] for header in others if req.get_header(header)), default)
        # By position: the fields of the path have the names that its owner gave them.
        await responder(req, resp, *params.values())

    return respond
