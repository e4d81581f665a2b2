"""What a plugin's objects must be able to do: one protocol for each kind of plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from lmx_kernel.errors import LmxError
from lmx_kernel.types import (
    Decision,
    GenerationRequest,
    LoadOptions,
    Location,
    MemoryEstimate,
    ModelCard,
)


@frozen
class SettingsSection:
    """A section of the config file.

    :param name: ``[name]`` in the file, ``LMX_NAME_KEY`` in the environment.
    :param cls: an attrs class whose every field has a default.
    """

    name: str
    cls: type[Any]


@frozen
class Finding:
    """One thing that `lmx doctor` looked at."""

    is_ok: bool
    subject: str
    text: str


class Backend(Protocol):
    """Recognises models of its format and prepares their loading. Imports no engine."""

    name: str

    def identify(self, location: Location) -> Iterable[ModelCard]:
        """Return the cards of the models at ``location``, from metadata alone.

        Called in a thread. Damaged files give a card with a ``problem``, never an exception.
        """
        ...

    def verify(self, card: ModelCard) -> None:
        """Check the files again right before a load.

        :raises ModelUnusableError: missing, damaged or unsupported; native code must not see it.
        """
        ...

    def estimate(self, card: ModelCard, options: LoadOptions) -> MemoryEstimate:
        """Return what loading would take, from metadata alone, rather too much than too little."""
        ...

    def worker_env(self, settings: Mapping[str, Any]) -> Mapping[str, str]:
        """Return environment variables that must be set before the engine's libraries load.

        Called in a thread, before each start of a worker.
        """
        ...


class ModelSource(Protocol):
    """A place where models lie on disk."""

    name: str

    def locations(self) -> Iterable[Location]:
        """Return the folders that may hold models. Called in a thread; missing folders are fine."""
        ...


class Router(Protocol):
    """Chooses a model for a request."""

    name: str

    def route(self, request: GenerationRequest, models: Sequence[ModelCard]) -> Decision | None:
        """Return a decision, or None to leave it to the next router. Pure and fast."""
        ...


@frozen(kw_only=True)
class HttpRequest:
    """What an authoriser sees of a request. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    client: str


class ApiSurface(Protocol):
    """An HTTP dialect.

    :ivar name: for logs and listings.
    :ivar prefix: the path prefix that is this dialect's, such as ``/v1``; errors below it are
        rendered by this surface.
    """

    name: str
    prefix: str

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a falcon ASGI resource."""
        ...

    def render_error(self, error: LmxError) -> Mapping[str, Any]:
        """Return the JSON body for an error."""
        ...

    def example(self, url: str, model: str) -> str:
        """Return a line to try in a shell, for the server at ``url`` and one of its models."""
        ...


class Monitor(Protocol):
    """Something that is looked at regularly."""

    name: str
    interval_s: float

    def sample(self) -> Mapping[str, float]:
        """Return current figures. Called in a thread."""
        ...
