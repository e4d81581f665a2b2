"""``/diagnostics``: the log, as it is written."""

from __future__ import annotations

import asyncio
import time

from attrs import field, frozen

from lmx_kernel.events import KernelEvent, RequestFinished
from lmx_kernel.interfaces import Kernel
from lmx_lmstudio_api.v1.surface import LOAD
from lmx_lmstudio_api.websocket.channel import Channel
from lmx_lmstudio_api.websocket.namespace import ChannelKind, Namespace

MAX_WAITING = 1000  # entries for a client that reads slowly; then the oldest are dropped


@frozen
class Diagnostics:
    """Tells what models were asked."""

    kernel: Kernel

    @property
    def namespace(self) -> Namespace:
        """What clients may ask for. As others' requests are told, it needs the scope of a load."""
        kind = ChannelKind(None, self.stream, lambda: LOAD, is_endless=True)
        return Namespace("/diagnostics", channels={"streamLogs": kind})

    async def stream(self, channel: Channel, _: None) -> None:
        """Send an entry for each request that has ended, until the client wants no more.

        Its text is not what was said, which is nobody's business, but what it cost.
        """
        entries = _Entries()
        channel.on_cancel(entries.end)
        with self.kernel.listen(entries.note):
            while not channel.is_cancelled:
                for event in await entries.take():
                    await channel.send({"type": "log", "log": _entry(event)})


@frozen
class _Entries:
    _waiting: list[RequestFinished] = field(factory=list, init=False)
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)

    def note(self, event: KernelEvent) -> None:
        """Take an event of the kernel."""
        if isinstance(event, RequestFinished):
            self._waiting.append(event)
            del self._waiting[:-MAX_WAITING]
            self._changed.set()

    def end(self) -> None:
        """End the wait."""
        self._changed.set()

    async def take(self) -> list[RequestFinished]:
        """Return the events since the last call, once there are some."""
        await self._changed.wait()
        self._changed.clear()
        taken, self._waiting[:] = list(self._waiting), []
        return taken


def _entry(event: RequestFinished) -> dict[str, object]:
    usage = event.usage
    text = (
        f"request {event.id}: {event.outcome}, {usage.prompt_tokens} tokens of prompt "
        f"({usage.cached_tokens} known), {usage.completion_tokens} tokens of answer, "
        f"{usage.total_s:.2f} s"
    )
    data = {
        # The only type that all versions of the clients know.
        "type": "llm.prediction.input",
        "modelPath": event.model,
        "modelIdentifier": event.model,
        "input": text,
    }
    return {"timestamp": round(time.time() * 1000), "data": data}
