"""What a plugin's objects must be able to do: one protocol for each kind of plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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

if TYPE_CHECKING:
    from lmx_kernel.jobs.job import Job


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

    def estimate(
        self, card: ModelCard, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return what loading would take, from metadata alone, rather too much than too little.

        :param settings: the backend's own section of the config.
        :raises ModelUnusableError: the files are damaged.
        """
        ...

    def device_bytes(self, settings: Mapping[str, Any]) -> int | None:
        """Return the memory of the device that models are loaded into; None where that is the
        machine's own. Called in a thread, at the start.
        """
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

    def delete(self, card: ModelCard) -> None:
        """Delete the files of a model that lies here. Called in a thread.

        :raises ForbiddenError: the model lies in a place that belongs to another program.
        """
        ...


@frozen(kw_only=True)
class HttpRequest:
    """What an authoriser sees of a request. Header names are lower case.

    :ivar key: the name of the key that it came with, ``config`` for the config's; "" for none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    client: str
    key: str = ""


@frozen(kw_only=True)
class ModelState:
    """What a model does at the moment.

    :ivar is_loaded: it could begin at once.
    :ivar running: requests that it works on.
    :ivar waiting: requests that wait for it.
    :ivar context_length: tokens that one request may use, as it is or would be loaded.
    :ivar tokens_per_s: of one answer, lately; None if it has not answered yet.
    :ivar wait_s: how long a new request would wait to begin, as far as anybody can know.
    :ivar problem: why it takes no request now; "" if nothing is known to be wrong.
    """

    context_length: int
    is_loaded: bool = False
    running: int = 0
    waiting: int = 0
    tokens_per_s: float | None = None
    wait_s: float = 0.0
    problem: str = ""


@frozen(kw_only=True)
class RoutingContext:
    """What a router may look at beside the request. Nothing of it changes while it is asked.

    :ivar now: with the machine's own time zone.
    :ivar state: returns what a model does; asking costs microseconds, so ask for those that matter.
    :ivar caller: the HTTP request that this came with; None if it came from within.
    :ivar memory_pressure: ease, soft or hard.
    :ivar purpose: ``answer``, or ``embedding`` where no text is wanted.
    """

    now: datetime
    state: Callable[[ModelCard], ModelState]
    caller: HttpRequest | None = None
    memory_pressure: str = "ease"
    purpose: str = "answer"


class Router(Protocol):
    """Chooses a model for a request."""

    name: str

    def route(
        self, request: GenerationRequest, models: Sequence[ModelCard], context: RoutingContext
    ) -> Decision | None:
        """Return a decision, or None to leave it to the next router.

        Pure and fast: it is called on the event loop, for every request. One that raises is passed
        over for this request.

        :param models: every model on disk, those that cannot be loaded included.
        """
        ...


@frozen(kw_only=True)
class Operation:
    """What one method of one route takes and gives: the source of its documentation.

    :param path: as in :meth:`ApiSurface.routes`.
    :param summary: a short sentence.
    :param body: the attrs class that the request's JSON body is parsed into.
    :param query: the attrs class whose fields are the query's parameters.
    :param result: the attrs class (or any type that JSON can show) of a successful answer.
    :param status: of a successful answer.
    :param accepted: the type of the answer with status 202, where there may be one: work goes on.
    :param streams: whether the answer is, or may be, a stream of server-sent events.
    :param event: the type of what each of these events carries as JSON.
    """

    method: str
    path: str
    summary: str
    body: Any = None
    query: type[Any] | None = None
    result: Any = None
    status: int = 200
    accepted: Any = None
    streams: bool = False
    event: Any = None


class ApiSurface(Protocol):
    """An HTTP dialect.

    :ivar name: for logs and listings.
    :ivar prefix: the path prefix that is this dialect's, such as ``/v1``; errors below it are
        rendered by this surface.
    :ivar scope: what a key must be good for to come in here, such as ``inference``; "" for any key.
    """

    name: str
    prefix: str
    scope: str

    def routes(self) -> Iterable[tuple[str, object]]:
        """Return pairs of a falcon URI template and a falcon ASGI resource."""
        ...

    def operations(self) -> Iterable[Operation]:
        """Return what each route takes and gives."""
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


class Report(Protocol):
    """How a running job tells of itself; cheap, and may be called often."""

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say that ``done`` of ``total`` units of the job's kind are done.

        :param total: None where it is not known yet.
        :param note: what is being worked on.
        """
        ...


class JobKind(Protocol):
    """Long work that runs beside the requests: started, watched and stopped by its id.

    A job outlives the daemon: one that was cut off is run again at the next start, so ``run`` goes
    on from what it left on disk, or begins anew.

    :ivar name: such as ``download``.
    :ivar unit: what its progress counts, such as ``bytes``.
    :ivar spec: the attrs class that describes one job; it must survive JSON.
    :ivar parallel: how many of this kind run at once; the others wait in line.
    """

    name: str
    unit: str
    spec: type[Any]
    parallel: int

    def key(self, spec: Any) -> str:
        """Return what two calls that want the same have in common: the second joins the first."""
        ...

    async def run(self, spec: Any, report: Report) -> Mapping[str, Any]:
        """Do it and return the result. Cancelled when the job is paused or cancelled.

        :raises LmxError: it failed, with the reason for the user.
        """
        ...

    async def discard(self, spec: Any) -> None:
        """Remove what an unfinished job left behind: it was cancelled, and will not go on."""
        ...


@runtime_checkable
class LastingKind(JobKind, Protocol):
    """A kind whose work need not be done again while what it made is there."""

    def is_there(self, done: Job) -> bool:
        """Tell whether what a job made is still there as it left it: who wants the same is told of
        that job.
        """
        ...
