"""The dialect as the kernel's HTTP server sees it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lmx_anthropic_api.errors import error_body
from lmx_anthropic_api.messages import CountTokens, Messages
from lmx_anthropic_api.models import Model, Models
from lmx_anthropic_api.objects import (
    MessageObject,
    ModelObject,
    ModelPage,
    StreamEvent,
    TokenCount,
)
from lmx_anthropic_api.schema import CountBody, MessagesBody
from lmx_anthropic_api.settings import AnthropicSettings
from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Kernel, Operation


class AnthropicSurface:
    """Everything below ``/v1/messages``, and ``/v1/models`` for clients of this dialect."""

    name = "anthropic"
    prefix = "/v1/messages"
    scope = "inference"
    header = "anthropic-version"

    def __init__(self, kernel: Kernel, settings: AnthropicSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        return [
            ("/v1/messages", Messages(self._kernel, self._settings)),
            ("/v1/messages/count_tokens", CountTokens(self._kernel)),
        ]

    def header_routes(self) -> Iterable[tuple[str, object]]:
        """Return the paths that belong to another dialect where the header is missing."""
        return [
            ("/v1/models", Models(self._kernel)),
            ("/v1/models/{name:path}", Model(self._kernel)),
        ]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return [
            Operation(
                method="POST",
                path="/v1/messages",
                summary="Answer a conversation, as Anthropic's Messages API",
                body=MessagesBody,
                result=MessageObject,
                streams=True,
                event=StreamEvent,
            ),
            Operation(
                method="POST",
                path="/v1/messages/count_tokens",
                summary="Count the tokens of a conversation",
                body=CountBody,
                result=TokenCount,
            ),
            Operation(
                method="GET",
                path="/v1/models",
                summary="List the models",
                result=ModelPage,
                header=self.header,
            ),
            Operation(
                method="GET",
                path="/v1/models/{name:path}",
                summary="Show a model",
                result=ModelObject,
                header=self.header,
            ),
        ]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the error body of this dialect."""
        return error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        messages = [{"role": "user", "content": "Hello!"}]
        fields = {"model": model, "max_tokens": 1024, "messages": messages}
        body = msgspec.json.encode(fields).decode()
        return f"curl {url}/v1/messages -d {shlex.quote(body)}"
