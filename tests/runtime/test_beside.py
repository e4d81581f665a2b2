"""What a step gave is told beside the next one, unless an answer may be over."""

from __future__ import annotations

import threading

import pytest
from attrs import define, field

from lmx_kernel.testing.fake_engine import FakeEngine
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.types import (
    ChatPrompt,
    EngineSpec,
    Finished,
    GenerationRequest,
    LoadOptions,
    Message,
    ModelCard,
    TextDelta,
    TextPart,
)
from lmx_kernel.worker import loop as module
from lmx_kernel.worker import messages as wire
from lmx_kernel.worker.draft_sources import DraftSources
from lmx_kernel.worker.loop import Loop

CARD = ModelCard(
    id="m", backend="fake", path=None, format="fake", architecture="fake", size_bytes=1,
    context_length=1024,
)  # fmt: skip
SPEC = EngineSpec(
    card=CARD, options=LoadOptions(context_length=1024, parallel=4, cache_tokens=8192)
)
WAIT_S = 30
SAYS = "One two three four."


@define(slots=False)
class Channel:
    """Notes what is sent, and from which thread."""

    sent: list = field(factory=list)
    arrived: threading.Condition = field(factory=threading.Condition)

    def send(self, message):
        with self.arrived:
            self.sent.append((threading.current_thread(), message))
            self.arrived.notify_all()

    def wait_for(self, kind):
        with self.arrived:
            assert self.arrived.wait_for(
                lambda: any(isinstance(one, kind) for _, one in self.sent), WAIT_S
            )

    def events(self):
        routed = [
            (t, r) for t, one in self.sent if isinstance(one, wire.Stepped) for r in one.routed
        ]
        return [(thread, event) for thread, one in routed for event in one.events]

    def text(self):
        return "".join(event.text for _, event in self.events() if isinstance(event, TextDelta))


class Engine(FakeEngine):
    """Counts its steps."""

    steps = 0

    def step(self):
        self.steps += 1
        return super().step()


def open_loop(engine_class, channel):
    engine = engine_class(FakeModel(says=SAYS), SPEC, bytearray())
    return Loop(engine, channel, drafts=DraftSources(engine, ()))


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def loop(channel, monkeypatch):
    monkeypatch.setattr(module, "LONG_STEP_S", 0.0)
    return open_loop(Engine, channel)


def start(loop, channel, **more):
    prompt = ChatPrompt((Message("user", (TextPart("hi"),)),))
    loop.prepare(wire.Prepare(1, GenerationRequest(model="m", prompt=prompt, **more)))
    channel.wait_for(wire.Prepared)
    loop.take(wire.Start(1, 0, 3))


def run(loop, channel, turns=100):
    for _ in range(turns):
        if any(isinstance(event, Finished) for _, event in channel.events()):
            return
        loop.turn()
    raise AssertionError("it does not end")


@pytest.mark.parametrize("more", [{}, {"stop": ("three",)}, {"max_tokens": 7}])
def test_the_answer_is_the_same(loop, channel, monkeypatch, more) -> None:
    start(loop, channel, **more)
    run(loop, channel)
    other = Channel()
    monkeypatch.setattr(module, "LONG_STEP_S", 1e9)
    plain = open_loop(Engine, other)
    start(plain, other, **more)
    run(plain, other)
    assert channel.text() == other.text()
    assert [e for _, e in channel.events()] == [e for _, e in other.events()]
    assert loop._engine.steps == plain._engine.steps, "none is computed in vain"


def test_texts_are_made_in_another_thread_but_the_last(loop, channel) -> None:
    start(loop, channel)
    run(loop, channel)
    threads = [thread for thread, event in channel.events() if isinstance(event, TextDelta)]
    mine = [thread is threading.current_thread() for thread in threads]
    assert not any(mine[:-1])
    assert mine[-1], "nothing is computed beside it"


def test_a_message_is_taken_after_all_that_was_given_before_it(loop, channel) -> None:
    start(loop, channel)
    while not channel.text():
        loop.turn()
    told = channel.text()
    loop.take(wire.Drop(1))
    loop.take(wire.Ping())
    loop.turn()
    kinds = [type(one) for _, one in channel.sent]
    assert kinds.index(wire.Pong) > max(n for n, kind in enumerate(kinds) if kind is wire.Stepped)
    assert channel.text().startswith(told)
    assert len(channel.text()) > len(told)


def test_what_goes_wrong_beside_a_step_is_not_lost(loop, channel) -> None:
    start(loop, channel)
    while not channel.text():
        loop.turn()

    def fail(_):
        raise RuntimeError("the text layer is broken")

    channel.send = fail
    with pytest.raises(RuntimeError, match="broken"):
        run(loop, channel)
