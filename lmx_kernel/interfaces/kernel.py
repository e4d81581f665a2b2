"""What a plugin may ask of the kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from lmx_kernel.events import Observer
from lmx_kernel.interfaces.job import Job, JobKind
from lmx_kernel.interfaces.plugin import PluginStatus
from lmx_kernel.interfaces.status import KernelStatus, ModelStatus
from lmx_kernel.interfaces.surface import ApiSurface, HttpRequest
from lmx_kernel.types import (
    Admission,
    EmbeddingInput,
    Embeddings,
    Event,
    GenerationRequest,
    LoadOverrides,
    ModelCard,
    Route,
    Usage,
)

T = TypeVar("T")


class Answer(ABC):
    """The events of an answer, for one reader.

    Use as a context manager: leaving it cancels what still runs.

    :ivar id: unique, for logs and headers.
    :ivar model: the catalogue id of the model that answers.
    :ivar outcome: how it ended: ``ok``, ``cancelled`` or an error's code; None while it goes on.
    """

    id: str
    model: str
    outcome: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        assert event is not None
        return event

    @abstractmethod
    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event, or None if none came within ``timeout_s``.

        :raises LmxError: the answer failed.
        :raises StopAsyncIteration: it is complete.
        """

    @abstractmethod
    def usage(self) -> Usage:
        """Return what it cost so far."""

    @abstractmethod
    def close(self) -> None:
        """Cancel what still runs. Harmless after the end."""


class Jobs(Protocol):
    """Long work. Calls that want the same join the job that is open for it already."""

    def kind(self, name: str) -> JobKind:
        """Return a kind of job.

        :raises NotFoundError: no active plugin offers it.
        """
        ...

    def get(self, job_id: str) -> Job:
        """Return a job.

        :raises NotFoundError: there is none of that id.
        """
        ...

    def select(self, kind: str | None = None, limit: int | None = None) -> list[Job]:
        """Return the jobs, of one kind if it is named, newest first.

        :param limit: the most that are returned; None returns all.
        """
        ...

    async def start(self, kind_name: str, spec: Any) -> Job:
        """Start a job, or return the one that is open for the same already, or the one that did it
        where its result is still there.

        :param spec: of the kind's own class.
        :raises NotFoundError: no active plugin offers the kind.
        """
        ...

    async def pause(self, job_id: str) -> Job:
        """Stop a job for now, and keep what it has.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it has ended.
        """
        ...

    async def resume(self, job_id: str) -> Job:
        """Go on with a job that was paused, or try one again that failed; or return the one that
        tries the same already.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it is done, or was cancelled.
        """
        ...

    async def cancel(self, job_id: str) -> Job:
        """Stop a job for good, and remove what it left behind, unless another goes on with that.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it is done.
        """
        ...


class Kernel(Protocol):
    """What a plugin may do. Called on the event loop."""

    @property
    def home(self) -> Path:
        """LMX's own folder."""
        ...

    @property
    def draining(self) -> bool:
        """Whether the daemon stops: what runs may finish, nothing new begins."""
        ...

    @property
    def surfaces(self) -> Sequence[ApiSurface]:
        """The HTTP dialects that are served; another sequence after plugins came or went."""
        ...

    @property
    def jobs(self) -> Jobs:
        """Long work."""
        ...

    def settings(self, cls: type[T]) -> T:
        """Return the section of the config that ``cls`` stands for."""
        ...

    # --- requests ---

    async def generate(self, request: GenerationRequest) -> Answer:
        """Begin to answer a request. The answer's first event is ``Admitted``; a check that the
        request fails later is raised from :meth:`Answer.next` in its place.

        :raises LmxError: unknown or unusable model, full queue, crashed model, stopping server.
        """
        ...

    async def embed(self, model: str, inputs: Sequence[EmbeddingInput]) -> Embeddings:
        """Return a vector for each text; the model is loaded if need be. Cancelling gives it up.

        :raises InvalidRequestError: the model makes no embeddings, or a text does not fit it.
        :raises LmxError: as :meth:`generate`.
        """
        ...

    async def count_tokens(self, request: GenerationRequest) -> int:
        """Return how many tokens the prompt of ``request`` has, which may be more than the context
        holds; the model is loaded if need be. Cancelling gives it up.

        :raises LmxError: as :meth:`generate`.
        """
        ...

    async def explain(self, request: GenerationRequest, caller: HttpRequest | None = None) -> Route:
        """Return where a request would go now, and why; nothing is generated and nothing is loaded.

        :param caller: the HTTP request that it would come with.
        """
        ...

    def decisions(self) -> list[Route]:
        """Return where the last requests went and why, the newest first."""
        ...

    # --- models ---

    def models(self) -> list[ModelCard]:
        """Return every model on disk, those that cannot be loaded included."""
        ...

    def find(self, name: str) -> ModelCard:
        """Return a model by its name.

        :raises ModelNotFoundError: names the models there are.
        """
        ...

    async def rescan(self) -> None:
        """Look at the disk again, now."""
        ...

    async def load(
        self, name: str, overrides: LoadOverrides, backend: str | None = None
    ) -> ModelStatus:
        """Load a model, and return when it is ready; harmless if it is already.

        :param overrides: how the load differs from the config.
        :param backend: where several recognise the same files; None takes the first.
        :raises LmxError: unknown or unusable model, no room, crashed model, stopping server.
        """
        ...

    async def unload(self, name: str, reason: str = "asked") -> str:
        """Unload a model and return its id; what it is doing may be finished. Harmless if it is not
        loaded.

        :param reason: for the event :class:`~lmx_kernel.events.ModelUnloaded`.
        :raises ModelNotFoundError: names the models there are.
        """
        ...

    async def delete(self, name: str) -> ModelCard:
        """Delete a model from disk.

        :raises ModelNotFoundError: names the models there are.
        :raises ConflictError: it is loaded.
        :raises ForbiddenError: it lies in a place that belongs to another program.
        """
        ...

    async def admission(
        self, name: str, overrides: LoadOverrides, backend: str | None = None
    ) -> Admission:
        """Return whether a model could be loaded, and what that would take.

        :raises LmxError: unknown or unusable model.
        """
        ...

    # --- config ---

    def config(self, *, only_live: bool = False) -> dict[str, dict[str, Any]]:
        """Return the values in force, by section and key; secrets are masked.

        :param only_live: leave out what cannot be changed while the daemon runs.
        """
        ...

    def configure(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Change values until the next start, all or none.

        :raises InvalidRequestError: with everything that is wrong with them.
        """
        ...

    async def reload_config(self) -> list[str]:
        """Read the config again, and put in force what may change while the daemon runs.

        :returns: the keys whose new values need a restart.
        :raises InvalidRequestError: with every problem in it; nothing changed.
        """
        ...

    # --- plugins ---

    def plugins(self) -> list[PluginStatus]:
        """Return every plugin and its state."""
        ...

    async def rescan_plugins(self) -> list[PluginStatus]:
        """Use plugins that were installed since, and try again those that failed.

        :returns: those that are active now and were not before.
        :raises ConflictError: one of them cannot be connected; all are disabled again.
        """
        ...

    async def enable_plugin(self, name: str) -> None:
        """Use a plugin that is disabled.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be loaded or connected.
        """
        ...

    async def disable_plugin(self, name: str) -> None:
        """Stop using a plugin until the next start.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be done safely: it is required, or runs a loaded model.
        """
        ...

    # --- state ---

    def status(self) -> KernelStatus:
        """Return the state of everything that runs."""
        ...

    def listen(self, listener: Observer) -> AbstractContextManager[None]:
        """Call ``listener`` for every event, on the event loop, while the context is open."""
        ...
