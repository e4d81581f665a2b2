"""What plugins do with each request before it is queued, and with the events of its answer."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence

import structlog

from lmx_kernel.errors import InternalError, LmxError
from lmx_kernel.interfaces import AnswerHook, AnswerObserver, Transform
from lmx_kernel.observe.subscriber import Subscriber
from lmx_kernel.plugins.calls import Calls
from lmx_kernel.plugins.timeouts import in_thread
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.types import Event, GenerationRequest, Usage

HOOK = "lmx_observe"
MOST_CALLS = 16
"""Of one plugin's transform at the same time: those that hang keep a thread each."""
log = structlog.get_logger(__name__)


class RequestHooks:
    """Calls the hooks ``lmx_transform`` and ``lmx_observe``.

    :param timeout_s: how long one transform of one request may take.
    :param calls: where the calls are recorded.
    """

    def __init__(self, timeout_s: float, calls: Calls) -> None:
        self._timeout_s = timeout_s
        self._calls = calls
        self._transforms: Sequence[tuple[str, Transform]] = ()
        self._watchers: Sequence[tuple[str, AnswerHook]] = ()
        self._feeds: dict[str, Subscriber[Callable[[], object]]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    def use(
        self,
        transforms: Sequence[tuple[str, Transform]],
        watchers: Sequence[tuple[str, AnswerHook]],
    ) -> None:
        """Call these hooks from now on, each with its plugin's name, and no others."""
        self._transforms, self._watchers = transforms, watchers
        for name in self._feeds.keys() - {name for name, _ in watchers}:
            self._feeds.pop(name).stop()

    async def transform(self, request: GenerationRequest) -> GenerationRequest:
        """Return what the plugins make of a request, one after the other.

        :raises LmxError: one refuses it, or fails.
        """
        for name, transform in self._transforms:
            request = await self._transformed(request, name, transform)
        return request

    def watch(self, request: GenerationRequest, answer: LiveAnswer) -> None:
        """Let plugins observe an answer that has just been queued."""
        for name, ask in self._watchers:
            try:
                with self._calls.watch(name, HOOK, on_loop=True):
                    observer = ask(request, answer.model, answer.id)
            # A plugin's: it may fail in any way, and the request must not.
            except (Exception, SystemExit):
                log.exception("observer_failed", plugin=name)
                continue
            if observer is not None:
                answer.observe(_Feed(observer, self._subscriber(name)))

    async def _transformed(
        self, request: GenerationRequest, name: str, transform: Transform
    ) -> GenerationRequest:
        run = contextvars.copy_context().run  # a transform may ask whose HTTP request it serves
        slots = self._slots.setdefault(name, asyncio.Semaphore(MOST_CALLS))
        result: object
        try:
            async with asyncio.timeout(self._timeout_s):
                await slots.acquire()
                work = asyncio.ensure_future(
                    in_thread(run, self._outcome, name, transform, request)
                )
                work.add_done_callback(lambda _: slots.release())
                result = await asyncio.shield(work)
        except TimeoutError as error:
            result = error
        if result is None:
            return request
        if isinstance(result, GenerationRequest):
            return result
        if isinstance(result, LmxError):
            raise result
        why = result if isinstance(result, BaseException) else TypeError(f"it returned {result!r}")
        log.error("transform_failed", plugin=name, exc_info=why)
        raise InternalError(f"the plugin {name} could not check the request")

    def _outcome(self, name: str, transform: Transform, request: GenerationRequest) -> object:
        """Return what a transform returned or raised; a refusal is no failure."""
        try:
            with self._calls.watch(name, "lmx_transform"):
                try:
                    return transform(request)
                except LmxError as error:
                    return error
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's may fail in any way
            return error

    def _subscriber(self, name: str) -> Subscriber[Callable[[], object]]:
        if name not in self._feeds:
            self._feeds[name] = Subscriber(name, HOOK, lambda call: call(), self._calls)
        return self._feeds[name]


class _Feed(AnswerObserver):
    """Hands the events of an answer to the thread of the plugin that observes it."""

    def __init__(
        self, observer: AnswerObserver, subscriber: Subscriber[Callable[[], object]]
    ) -> None:
        self._observer = observer
        self._put = subscriber.put

    def see(self, event: Event) -> None:
        self._put(lambda: self._observer.see(event))

    def end(self, outcome: str, usage: Usage) -> None:
        self._put(lambda: self._observer.end(outcome, usage))
