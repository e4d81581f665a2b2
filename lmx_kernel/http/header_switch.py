"""One path for several dialects: the request's headers say which of them answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NoReturn

from falcon import COMBINED_METHODS, HTTPNotFound
from falcon.asgi import Request, Response


def header_switch(resource: object | None, by_header: Mapping[str, object]) -> object:
    """Return a falcon resource that passes each request on: to the resource of the first header
    that it has, if that one takes its method; else to ``resource``.

    :param resource: None where no dialect has the path without a header: such a request is a 404.
    """
    names = [f"on_{method.lower()}" for method in COMBINED_METHODS]
    taking = by_header.values() if resource is None else [resource]
    return SimpleNamespace(
        **{
            name: _responder(name, getattr(resource, name, _not_found), by_header)
            for name in names
            if any(hasattr(one, name) for one in taking)
        }
    )


async def _not_found(*_given: Any) -> NoReturn:
    raise HTTPNotFound


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
