"""The dialect as the kernel's HTTP server sees it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import Kernel, Operation
from lmx_ollama_api.chat import Chat
from lmx_ollama_api.delete import Delete
from lmx_ollama_api.embed import Embed, OldEmbeddings
from lmx_ollama_api.generate import Generate
from lmx_ollama_api.models import Running, Show, Tags, Version
from lmx_ollama_api.objects import ErrorBody
from lmx_ollama_api.operations import DELETE, OPERATIONS, PULL
from lmx_ollama_api.pull import Pull
from lmx_ollama_api.refusals import NO_BLOBS, REASONS, Blobs, Refusal
from lmx_ollama_api.settings import OllamaSettings


class OllamaSurface:
    """What Ollama has below ``/api``: conversations, prompts, embeddings, models."""

    name = "ollama"
    prefix = "/api"
    scope = "inference"

    def __init__(self, kernel: Kernel, settings: OllamaSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a resource."""
        kernel = self._kernel
        return [
            ("/api/version", Version()),
            ("/api/tags", Tags(kernel)),
            ("/api/ps", Running(kernel)),
            ("/api/show", Show(kernel)),
            ("/api/chat", Chat(kernel, self._settings)),
            ("/api/generate", Generate(kernel, self._settings)),
            ("/api/embed", Embed(kernel)),
            ("/api/embeddings", OldEmbeddings(kernel)),
            *((path, Refusal(reason)) for path, reason in REASONS.items()),
            ("/api/blobs/{digest}", Blobs(NO_BLOBS)),
        ]

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
        return OPERATIONS

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the body of an error."""
        return error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        return _example(f"{url}/api/generate", {"model": model, "prompt": "Hello!"})


class PullSurface:
    """Downloads; they take a key that may change the disk."""

    name = "ollama_pull"
    prefix = "/api/pull"
    scope = "admin"

    def __init__(self, kernel: Kernel, settings: OllamaSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return the only route."""
        return [(self.prefix, Pull(self._kernel, self._settings))]

    def operations(self) -> Iterable[Operation]:
        """Return what it takes and gives."""
        return [PULL]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the body of an error."""
        return error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        return _example(f"{url}{self.prefix}", {"model": "hf.co/publisher/name:Q4_K_M"})


class DeleteSurface:
    """Deletes models; that takes a key that may change the disk."""

    name = "ollama_delete"
    prefix = "/api/delete"
    scope = "admin"

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return the only route."""
        return [(self.prefix, Delete(self._kernel))]

    def operations(self) -> Iterable[Operation]:
        """Return what it takes and gives."""
        return [DELETE]

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the body of an error."""
        return error_body(error)

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell."""
        return _example(f"-X DELETE {url}{self.prefix}", {"model": model})


def error_body(error: LmxError) -> ErrorBody:
    """Return an error as the clients of this dialect read it."""
    return {"error": error.message}


def _example(target: str, body: Mapping[str, Any]) -> str:
    return f"curl {target} -d {shlex.quote(msgspec.json.encode(body).decode())}"
