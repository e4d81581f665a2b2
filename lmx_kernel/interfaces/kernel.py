"""The kernel as plugins see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lmx_kernel.events import Observer
from lmx_kernel.interfaces.answer import Answer
from lmx_kernel.interfaces.job import Job, JobKind
from lmx_kernel.interfaces.metric import Metric
from lmx_kernel.interfaces.model_settings import ModelSettingsStore
from lmx_kernel.interfaces.plugin import HookCall, PluginStatus
from lmx_kernel.interfaces.status import KernelStatus, ModelStatus
from lmx_kernel.interfaces.stored_answer import StoredAnswers
from lmx_kernel.interfaces.surface import ApiSurface, HttpRequest
from lmx_kernel.types import (
    Admission,
    DeletedModel,
    EmbeddingInput,
    Embeddings,
    EncodedPrompt,
    GenerationRequest,
    LoadOverrides,
    ModelCard,
    Route,
)

T = TypeVar("T")


class Jobs(Protocol):
    """The jobs. A call for work that an open job does already joins that job."""

    def kind(self, name: str) -> JobKind:
        """Return a kind of job.

        :raises NotFoundError: no active plugin has it.
        """
        ...

    def get(self, job_id: str) -> Job:
        """Return a job.

        :raises NotFoundError: there is none of that id.
        """
        ...

    def select(self, kind: str | None = None, limit: int | None = None) -> list[Job]:
        """Return the jobs, newest first; only those of one kind if it is given.

        :param limit: the most that are returned; None returns all.
        """
        ...

    async def start(self, kind_name: str, spec: Any) -> Job:
        """Start a job, or return the open job that does the same, or the finished one whose result
        still exists.

        :param spec: an object of the kind's ``spec`` class.
        :raises NotFoundError: no active plugin has the kind.
        """
        ...

    async def pause(self, job_id: str) -> Job:
        """Pause a job, and keep what it has done.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it has ended.
        """
        ...

    async def resume(self, job_id: str) -> Job:
        """Resume a job that was paused, or retry one that failed; or return the open job that does
        the same.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it is done, or was cancelled.
        """
        ...

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job, and remove what it left behind, unless another job continues with that.

        :raises NotFoundError: there is none of that id.
        :raises ConflictError: it is done.
        """
        ...


class Kernel(Protocol):
    """What a plugin may do. All methods are called on the event loop."""

    @property
    def home(self) -> Path:
        """LMX's own folder."""
        ...

    @property
    def draining(self) -> bool:
        """Whether the daemon is stopping: what runs may finish, nothing new starts."""
        ...

    @property
    def surfaces(self) -> Sequence[ApiSurface]:
        """The API surfaces that are served; a new sequence after plugins were added or removed."""
        ...

    @property
    def jobs(self) -> Jobs:
        """The jobs: long work that survives a restart."""
        ...

    @property
    def model_settings(self) -> ModelSettingsStore:
        """The settings of each model, and the names by which clients may ask for it."""
        ...

    @property
    def stored_answers(self) -> StoredAnswers:
        """The answers that are kept, or computed in the background."""
        ...

    @property
    def caller(self) -> HttpRequest | None:
        """The HTTP request that is being served, or the handshake of the websocket whose call is;
        None for work that the kernel does itself.
        """
        ...

    def settings(self, cls: type[T]) -> T:
        """Return the section of the config whose class is ``cls``."""
        ...

    # --- requests ---

    async def generate(self, request: GenerationRequest) -> Answer:
        """Queue a request and return its answer. The answer's first event is ``Admitted``; an error
        that is found later is raised from :meth:`Answer.next`.

        :raises LmxError: unknown or unusable model, full queue, crashed model, stopping server.
        """
        ...

    async def embed(self, model: str, inputs: Sequence[EmbeddingInput]) -> Embeddings:
        """Return a vector for each text; the model is loaded if necessary. Cancelling the call
        cancels the request.

        :raises InvalidRequestError: the model makes no embeddings, or a text is too long for it.
        :raises LmxError: as :meth:`generate`.
        """
        ...

    async def count_tokens(self, request: GenerationRequest) -> int:
        """Return how many tokens the prompt of ``request`` has, which may be more than the context
        allows; the model is loaded if necessary. Cancelling the call cancels the request.

        :raises LmxError: as :meth:`generate`.
        """
        ...

    async def encode(self, request: GenerationRequest) -> EncodedPrompt:
        """Return the prompt of ``request`` as the model would read it, which may be longer than the
        context; the model is loaded if necessary. Cancelling the call cancels the request.

        :raises LmxError: as :meth:`generate`.
        """
        ...

    async def explain(self, request: GenerationRequest, caller: HttpRequest | None = None) -> Route:
        """Return where a request would go now, and why; nothing is generated and nothing is loaded.

        :param caller: the HTTP request that it would come with.
        """
        ...

    def decisions(self) -> list[Route]:
        """Return the routing of the last requests, newest first."""
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
        """Scan the disk now."""
        ...

    async def load(
        self, name: str, overrides: LoadOverrides, backend: str | None = None
    ) -> ModelStatus:
        """Load a model, and return when it is ready; has no effect if it is loaded so already.

        :param overrides: how the load differs from the config.
        :param backend: chooses one if several recognise the same files; None takes the first.
        :raises LmxError: unknown or unusable model, no memory, crashed model, stopping server.
        """
        ...

    async def unload(self, name: str, reason: str = "asked") -> str:
        """Unload a model after its running requests, and return its id. Has no effect if it is not
        loaded.

        :param reason: for the event :class:`~lmx_kernel.events.ModelUnloaded`.
        :raises ModelNotFoundError: names the models there are.
        """
        ...

    def keep(self, model: str, ttl_s: float | None) -> None:
        """Change for how long a loaded model stays without a request; this load only. Has no effect
        if it is not loaded.

        :param model: its catalogue id.
        :param ttl_s: unload it after this many seconds without a request; None never does.
        """
        ...

    async def delete(self, name: str) -> DeletedModel:
        """Delete a model's own files from disk, and return what was left beside them.

        :raises ModelNotFoundError: names the models there are.
        :raises ConflictError: it is loaded, or another model that has one of its files is.
        :raises ForbiddenError: it is in a folder that belongs to another program.
        """
        ...

    async def admission(
        self, name: str, overrides: LoadOverrides, backend: str | None = None
    ) -> Admission:
        """Return whether a model could be loaded now, and how much memory it would take.

        :raises LmxError: unknown or unusable model.
        """
        ...

    # --- config ---

    def config(self, *, only_live: bool = False) -> dict[str, dict[str, Any]]:
        """Return the current values, by section and key; secrets are masked.

        :param only_live: leave out what cannot be changed while the daemon runs.
        """
        ...

    def configure(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Change values until the next start, all or none.

        :param wanted: values by section and key.
        :raises InvalidRequestError: with all problems.
        """
        ...

    async def reload_config(self) -> list[str]:
        """Read the config again, and apply what may change while the daemon runs.

        :returns: the keys whose new values need a restart.
        :raises InvalidRequestError: with all problems; nothing changed.
        """
        ...

    # --- plugins ---

    def plugins(self) -> list[PluginStatus]:
        """Return every plugin and its state."""
        ...

    def metrics(self) -> list[Metric]:
        """Return the metrics of all plugins as they stand."""
        ...

    async def rescan_plugins(self) -> list[PluginStatus]:
        """Look at what is installed: load new plugins and new versions of others, retry those that
        failed, and take those out that are gone. What cannot be taken out now runs on; its status
        says why.

        :returns: those that are active now and were not before, or in another version.
        """
        ...

    async def enable_plugin(self, name: str) -> None:
        """Load a plugin that is disabled.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be loaded or connected.
        """
        ...

    async def reload_plugin(self, name: str) -> None:
        """Import a plugin anew and use that, whether or not it has changed. What runs in the old
        one ends there.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be taken out now, or not be loaded, with the reason.
        """
        ...

    def plugin_calls(self, name: str) -> list[HookCall]:
        """Return the last calls of a plugin, the oldest first.

        :raises NotFoundError: it is not installed.
        """
        ...

    async def disable_plugin(self, name: str) -> None:
        """Stop using a plugin until the next start.

        :raises NotFoundError: it is not installed.
        :raises ConflictError: it cannot be removed safely: it is required, or runs a loaded model.
        """
        ...

    # --- state ---

    def status(self) -> KernelStatus:
        """Return the state of everything that runs."""
        ...

    def model_statuses(self) -> list[ModelStatus]:
        """Return the state of each model that was requested since the start, without what costs
        time to find out about the machine.
        """
        ...

    def listen(self, listener: Observer) -> AbstractContextManager[None]:
        """Call ``listener`` for every event, on the event loop, while the context is open."""
        ...
