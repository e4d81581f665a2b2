"""Only what will change the set of running sequences interrupts a long step."""

from __future__ import annotations

import threading

from attrs import define, field

from lmx_kernel.testing.fake_engine import FakeEngine
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.types import (
    ChatPrompt,
    EngineSpec,
    GenerationRequest,
    LoadOptions,
    Message,
    ModelCard,
    TextPart,
)
from lmx_kernel.worker import messages as wire
from lmx_kernel.worker.loop import Loop

CARD = ModelCard(
    id="m", backend="fake", path=None, format="fake", architecture="fake", size_bytes=1,
    context_length=1024,
)  # fmt: skip
SPEC = EngineSpec(
    card=CARD, options=LoadOptions(context_length=1024, parallel=4, cache_tokens=8192)
)
WAIT_S = 30


class Engine(FakeEngine):
    """Counts how often it is interrupted."""

    def __init__(self) -> None:
        super().__init__(FakeModel(), SPEC, bytearray())
        self.interrupts = threading.Semaphore(0)

    def interrupt(self) -> None:
        self.interrupts.release()


@define
class Channel:
    prepared: threading.Semaphore = field(factory=lambda: threading.Semaphore(0))

    def send(self, message: object) -> None:
        if isinstance(message, wire.Prepared):
            self.prepared.release()


def test_who_joins_or_leaves_interrupts_and_nothing_else() -> None:
    engine, channel = Engine(), Channel()
    loop = Loop(engine, channel)
    for number in (1, 2):
        prompt = ChatPrompt((Message("user", (TextPart(f"{number}"),)),))
        loop.prepare(wire.Prepare(number, GenerationRequest(model="m", prompt=prompt)))
        assert channel.prepared.acquire(timeout=WAIT_S)
    for harmless in (wire.Ping(), wire.Trim(), wire.Drop(7)):
        loop.take(harmless)
    assert not engine.interrupts.acquire(blocking=False)

    loop.take(wire.Start(1, 0, 3))
    assert engine.interrupts.acquire(timeout=WAIT_S), "who joins"
    loop.turn()
    loop.take(wire.Drop(2))
    assert not engine.interrupts.acquire(blocking=False), "it does not run"
    loop.take(wire.Drop(1))
    assert engine.interrupts.acquire(blocking=False), "who leaves"
