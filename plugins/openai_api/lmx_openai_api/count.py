"""``/v1/.../count_tokens``: what a request would take, without answering it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from falcon.asgi import Request, Response

from lmx_kernel.http.json_body import read_body, send
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import GenerationRequest
from lmx_openai_api.objects import TokenCount

T = TypeVar("T")
Parsing = tuple[type[T], Callable[[T], Sequence[GenerationRequest]]]
"""A class of bodies, and what one of them asks for."""


class CountTokens(Generic[T]):
    """Takes the bodies of another route, and counts."""

    def __init__(
        self, kernel: Kernel, cls: type[T], requests: Callable[[T], Sequence[GenerationRequest]]
    ) -> None:
        self._kernel = kernel
        self._cls = cls
        self._requests = requests

    async def on_post(self, req: Request, resp: Response) -> None:
        """Count the tokens of all prompts of one body."""
        requests = self._requests(await read_body(req, self._cls))
        counts = [await self._kernel.count_tokens(request) for request in requests]
        count: TokenCount = {"object": "token_count", "prompt_tokens": sum(counts)}
        send(resp, count)
