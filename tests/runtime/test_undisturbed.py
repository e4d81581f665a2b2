"""Nothing that happens to a worker or a reader changes what an answer says.

The dispatcher, the worker's loop and the text layer run here in one process, without a socket or a
clock between them, so that every order of steps, reads, crashes and preemptions can be tried.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from lmx_kernel.runtime import event_buffer
from lmx_kernel.runtime.answer import Phase
from lmx_kernel.runtime.dispatcher import Dispatcher
from lmx_kernel.runtime.shares import Shares
from lmx_kernel.stored.progress import Progress
from lmx_kernel.testing.fake_engine import FakeEngine
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.types import (
    ChatPrompt,
    EngineSpec,
    Finished,
    GenerationRequest,
    LoadOptions,
    Message,
    ModelCard,
    PromptProgress,
    ReasoningDelta,
    SamplingRequest,
    TextDelta,
    TextPart,
    Tool,
    ToolCallDelta,
    ToolCallStarted,
)
from lmx_kernel.worker import messages as wire
from lmx_kernel.worker.draft_sources import DraftSources
from lmx_kernel.worker.loop import Loop
from lmx_kernel.worker.preparer import ChatChoice, Preparer
from lmx_kernel.worker.promise import Promise

CALLS = "".join(
    f"<tool_call>\n{json.dumps({'name': 'edit', 'arguments': {'lines': lines}})}\n</tool_call>"
    for lines in ([1, 2, 3], "é")
)
SAYS = f"<think>hmm</think>I edit.\n{CALLS}"

PLAIN, DRAFTING = FakeModel(says=SAYS), FakeModel(says=SAYS, checks_drafts=True)
EXPECTED = SAYS.replace("edit", "exit")

EDIT = Tool(name="edit", parameters={"additionalProperties": True})


def request(text, **more):
    prompt = ChatPrompt((Message("user", (TextPart(text),)),), (EDIT,))
    return GenerationRequest(model="m", prompt=prompt, sampling=SamplingRequest(seed=3), **more)


REQUESTS = [
    request("two candidates", candidates=2, prediction=EXPECTED),
    request("with log-probabilities", logprobs=2, prediction=EXPECTED),
    request("a stop text", stop=("edit.\n",)),
    request("cut", max_tokens=50, prediction=SAYS),
]


def gist(events):
    """Return all that a reader was told, however it was divided into events."""
    told = {}
    for event in events:
        one = told.setdefault(getattr(event, "candidate", None), [""] * 2 + [[], [], {}, None])
        if isinstance(event, TextDelta):
            one[0] += event.text
            one[2] += event.tokens
            one[3] += event.logprobs
        elif isinstance(event, ReasoningDelta):
            one[1] += event.text
        elif isinstance(event, ToolCallStarted):
            assert event.index not in one[4]
            one[4][event.index] = [event.id, event.name, ""]
        elif isinstance(event, ToolCallDelta):
            one[4][event.index][2] += event.arguments
        elif isinstance(event, Finished):
            assert one[5] is None
            one[5] = event
    return told


# --- in one process ------------------------------------------------------------------------------


class Engine(FakeEngine):
    """Puts out its youngest sequence after a step when it is told to."""

    must_preempt = False

    def step(self):
        step = super().step()
        running = list(self._running)
        if not self.must_preempt or len(running) < 2:
            return step
        self.must_preempt = False
        self.remove(running[-1].id)
        return evolve(step, preempted=(*step.preempted, running[-1].id))


class DirectPreparer(Preparer):
    """Prepares at once, and compiles nothing: the engine says what it says."""

    def _constrain(self, request, prompt_end):
        return None

    def submit(self, message):
        self._requests[message.id] = Future()
        self._requests[message.id].set_result(self._prepare(message))


class Channel:
    def __init__(self):
        self.frames = []

    def send(self, message):
        self.frames.append(wire.decode(wire.encode(message)[wire.HEADER_BYTES :]))


class Defaults:
    def get(self, section):
        return section()


SPEC = EngineSpec(
    card=ModelCard(
        id="m",
        backend="fake",
        path=None,
        format="fake",
        architecture="fake",
        size_bytes=1,
        context_length=1024,
    ),
    options=LoadOptions(context_length=1024, parallel=6, cache_tokens=8192),
)


@define
class Stage:
    """A dispatcher with its workers, and what the readers got."""

    dispatcher: Dispatcher
    script: FakeModel
    channel: Channel = field(factory=Channel)
    loop: Loop | None = None
    answers: list = field(factory=list)
    read: list[list] = field(factory=list)

    @classmethod
    def open(cls, script=DRAFTING):
        none = [lambda: None] * 2
        return cls(Dispatcher("m", Defaults(), lambda _: None, *none, Shares()), script)

    def start(self):
        self.channel = Channel()
        engine = Engine(self.script, SPEC, bytearray())
        self.loop = Loop(engine, self.channel, drafts=DraftSources(engine, ("copy",)))
        self.loop._preparer = DirectPreparer(
            self.loop._engine, self.channel, {}, ChatChoice(), Promise()
        )
        self.dispatcher.attach(self.take, self.loop.limits)

    def take(self, message, *, later=False):
        if isinstance(message, wire.Prepare):
            self.loop.prepare(message)
        else:
            self.loop.take(message)

    def ask(self, request):
        self.answers.append(self.dispatcher.submit(request))
        self.read.append([])

    def step(self):
        if self.loop._is_busy or not self.loop._inbox.empty():
            self.loop.take(wire.Ping())  # so that it does not wait after its last message
            self.loop.turn() if self.loop._is_busy else self.take_in()

    def take_in(self):
        """Take messages without a step, which would wait where they leave nothing to do."""
        while not self.loop._inbox.empty():
            self.loop._take(self.loop._inbox.get())

    def deliver(self):
        if self.channel.frames:
            self.dispatcher.receive(self.channel.frames.pop(0))

    def preempt(self):
        self.loop._engine.must_preempt = True

    def crash(self):
        """Lose the worker with all that it sent and that was not read."""
        for answer in self.answers:
            answer.resume.crashes = 0  # none is given up
        self.dispatcher.crash("a test", killed=True)
        self.start()

    async def disturb(self, kind, number):
        if kind == "go":
            for _ in range(number):
                self.step()
                self.deliver()
        elif kind == "read":
            for _ in range(5):
                await self.read_one(number)
        else:
            getattr(self, kind)()

    async def read_one(self, number):
        answer = self.answers[number % len(self.answers)]
        try:
            if (event := await answer.next(timeout_s=0)) is not None:
                self.read[number % len(self.answers)].append(event)
        except StopAsyncIteration:
            pass

    async def run_out(self):
        """Let all answers end; each is read only when it is parked, so that it is parked often."""
        left = 5000
        while not self.dispatcher.is_idle and (left := left - 1):
            self.step()
            while self.channel.frames:
                self.deliver()
            for number in range(len(self.answers)):
                while self.answers[number].resume.phase is Phase.PARKED:
                    await self.read_one(number)
        assert left, "it does not end"
        for number, answer in enumerate(self.answers):
            self.read[number] += [event async for event in answer]

    def told(self):
        kept = [[e for e in events if not isinstance(e, PromptProgress)] for events in self.read]
        costs = [
            (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens)
            for usage in (answer.usage() for answer in self.answers)
        ]
        return [*map(gist, kept)], costs


async def told(disturbances, script=DRAFTING):
    stage = Stage.open(script)
    stage.start()
    for one in REQUESTS:
        stage.ask(one)
    for kind, number in disturbances:
        await stage.disturb(kind, number)
    await stage.run_out()
    usages = [answer.usage() for answer in stage.answers]
    assert all(one.accepted_draft_tokens <= one.draft_tokens for one in usages)
    assert all(one.accepted_draft_tokens < one.completion_tokens for one in usages)
    assert any(one.accepted_draft_tokens for one in usages) == script.checks_drafts
    return stage.told()


KINDS = st.sampled_from(["go", "go", "go", "step", "deliver", "read", "preempt", "crash"])


def test_drafts_change_nothing(undisturbed):
    assert asyncio.run(told((), PLAIN)) == undisturbed


@pytest.fixture(scope="module")
def undisturbed():
    return asyncio.run(told(()))


@pytest.mark.parametrize(
    ("examples", "least_buffer"),  # the smaller, the more often an answer is computed again
    [pytest.param(10, 5, id="few"), pytest.param(500, 2, id="all", marks=pytest.mark.full)],
)
@pytest.mark.timeout(1200)
def test_pauses_crashes_and_preemptions_change_nothing_that_is_told(
    undisturbed, examples, least_buffer
):
    with pytest.MonkeyPatch.context() as patch:

        @settings(max_examples=examples, deadline=None)
        @given(
            st.integers(least_buffer, 12),
            st.lists(st.tuples(KINDS, st.integers(0, 40)), max_size=30),
        )
        def check(buffer_events, disturbances):
            patch.setattr(event_buffer, "MAX_EVENTS", buffer_events)
            assert asyncio.run(told(disturbances)) == undisturbed

        check()


async def told_over_restarts(one, restarts):
    """Return what an answer told whose daemon was killed again and again, if it was read so far.

    :param restarts: how many steps each daemon did, and after how many of them its answer was read.
    """
    progress, kept = Progress(one, created_at=0.0), []
    for steps, read_each in (*restarts, (1000, 1)):
        stage = Stage.open()
        stage.start()
        stage.ask(progress.resumed_request)
        for step in range(1, steps + 1):
            stage.step()
            stage.deliver()
            try:
                if step % read_each == 0:
                    progress.add(await stage.answers[0].next_steps(timeout_s=0))
            except StopAsyncIteration:
                break
        kept += progress.take()[1]
        if progress.is_finished:
            break
    return gist([event for event in kept if not isinstance(event, PromptProgress)])


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    "examples", [pytest.param(8, id="few"), pytest.param(300, id="all", marks=pytest.mark.full)]
)
@pytest.mark.timeout(1200)
def test_an_answer_whose_daemon_is_killed_goes_on_after_whole_steps(undisturbed, number, examples):
    @settings(max_examples=examples, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=6))
    def check(restarts):
        told = asyncio.run(told_over_restarts(REQUESTS[number], restarts))
        assert told == undisturbed[0][number]

    check()


def test_the_undisturbed_answers_have_every_kind_of_event(undisturbed):
    answers, costs = undisturbed
    text, thought, tokens, _, calls, end = answers[0][1]
    assert (text, thought, len(tokens)) == ("I edit.\n", "hmm", len(SAYS.encode()) + 1)
    assert [json.loads(call[2]) for call in calls.values()] == [
        {"lines": [1, 2, 3]},
        {"lines": "é"},
    ]
    assert end.reason == "tool_calls"
    assert len(answers[1][0][3]) == len(SAYS.encode())
    assert (answers[2][0][0], answers[2][0][5].reason) == ("I ", "stop")
    assert (len(answers[3][0][2]), answers[3][0][5].reason) == (50, "length")
    assert costs[0][1:] == (2 * len(tokens), 2 * len(">hmm</think>"))


# --- with a worker process -----------------------------------------------------------------------


@pytest.mark.parametrize("in_call", [False, True])
async def test_a_reader_that_pauses_loses_nothing(tmp_path, in_call):
    long = " ".join(str(number) for number in range(700))
    says = f'<tool_call>\n{{"name": "edit", "arguments": {{"lines": "{long}"}}}}\n</tool_call>'
    script = FakeModel(says=says if in_call else f"<think>{long}</think>", context_length=8192)
    async with running_kernel(tmp_path, {"m": script}) as stage:
        with await stage.kernel.generate(request("pause")) as answer:
            while not (answer.is_full and stage.instance("m").requests.running == 0):
                await asyncio.sleep(0)
            events = [event async for event in answer]
    if in_call:
        arguments = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta))
        assert json.loads(arguments) == {"lines": long}
    else:
        assert "".join(e.text for e in events if isinstance(e, ReasoningDelta)) == long
