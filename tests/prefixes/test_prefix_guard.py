"""Whatever goes wrong with the store on disk, sequences are computed, and one warning says why."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from lmx_kernel.engine import STATE_TOKENS, Output, Progress, Sequence, Step
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.prefixes.writer import StateWriter
from lmx_kernel.types import Sampling
from lmx_kernel.worker import prefix_guard
from lmx_kernel.worker.prefix_guard import Overdue, PrefixGuard

BLOCKS = 24
TOKENS = [number % 200 for number in range(BLOCKS * STATE_TOKENS + 1)]
SEQUENCES = [
    Sequence(id=number, tokens=TOKENS, produced=0, sampling=Sampling(seed=1)) for number in range(3)
]
COMPUTED = Step(progress=(Progress(0, len(TOKENS), len(TOKENS), 0),))


class States:
    """The states of an engine; a method that is ``broken`` raises."""

    identity = "test"
    prompt_token_s = 1.0

    def __init__(self, broken=""):
        self.broken = broken

    def _done(self, method, value):
        if method == self.broken:
            raise RuntimeError(f"{method} is broken")
        return value

    def computed(self, sequence_id):
        return self._done("computed", len(TOKENS))

    def export_block(self, sequence_id, start):
        return self._done("export_block", memoryview(bytes(100)))

    def held(self, tokens, cache_space):
        return self._done("held", 0)

    def import_blocks(self, tokens, cache_space, start, states):
        return self._done("import_blocks", True)


class Whole:
    """The whole states of an engine, which keeps what it takes over; a method that is ``broken``
    raises.
    """

    identity = "test"
    prompt_token_s = 1.0

    def __init__(self, broken="", kept=0):
        self.broken = broken
        self.kept = kept

    def _done(self, method, value):
        if method == self.broken:
            raise RuntimeError(f"{method} is broken")
        return value

    def held(self, tokens, cache_space):
        return self._done("held", self.kept)

    def export_whole(self, tokens, cache_space):
        return self._done("export_whole", memoryview(bytes(100)))

    def import_whole(self, tokens, cache_space, state):
        self.kept = len(tokens)
        return self._done("import_whole", True)


class Stage:
    """A guard whose engine has ``states``."""

    def __init__(self, tmp_path, states):
        self.warnings = []
        self.delivered = SimpleQueue()
        self.store = PrefixStore.open(
            tmp_path / "prefixes",
            "m",
            b"i" * 16,
            limit_bytes=1 << 20,
            ttl_s=0,
            warn=self.warnings.append,
        )
        self.guard = PrefixGuard(engine_with(states), self.store, self.delivered.put)

    def begin_all(self):
        """Begin all sequences; return those that need not wait, once nobody waits any more."""
        ready = [one for one in SEQUENCES if not self.guard.begin(one)]
        while len(ready) < len(SEQUENCES):
            ready += self.guard.take(self.delivered.get(timeout=30))
        return ready


def engine_with(states):
    attributes = ("tokenizer", "limits", "add", "step", "remove", "embed", "trim", "stats", "close")
    return SimpleNamespace(**dict.fromkeys(attributes), states=states)


@pytest.fixture
def open_stage(tmp_path):
    """Return a function that makes a stage, with all blocks on disk."""
    writer = Stage(tmp_path, States())
    assert not writer.guard.begin(SEQUENCES[0])
    writer.guard.stepped(COMPUTED)
    writer.guard.close()
    return lambda states: Stage(tmp_path, states)


def test_sequences_wait_for_what_is_on_disk(open_stage):
    stage = open_stage(States())
    assert len(stage.begin_all()) == len(SEQUENCES)
    assert stage.guard.figures()["prefix_read_bytes"] > 0
    assert stage.warnings == []


def test_an_answer_is_stored_as_its_blocks_are_complete(tmp_path):
    stage = Stage(tmp_path, States())
    stage.guard.begin(SEQUENCES[0])
    stage.guard.stepped(COMPUTED)
    stage.guard.close()
    assert len(list(stage.store.folder.iterdir())) == BLOCKS
    stage.guard._keeper._engine.computed = lambda sequence_id: len(TOKENS) + STATE_TOKENS
    for number in range(STATE_TOKENS):
        stage.guard.stepped(Step(outputs=(Output(0, (number,)),)))
    stage.guard.close()
    assert len(list(stage.store.folder.iterdir())) == BLOCKS + 1


@pytest.mark.parametrize("broken", ["held", "import_blocks", "computed", "export_block"])
def test_after_an_error_all_is_computed(open_stage, broken):
    stage = open_stage(States(broken))
    if broken == "export_block":
        stage.store.remove([*enumerate(stage.store._entries)])
        stage.store._entries.clear()
    assert len(stage.begin_all()) == len(SEQUENCES)
    stage.guard.stepped(COMPUTED)
    stage.guard.end(0)
    (warning,) = stage.warnings
    assert f"{broken} is broken" in warning
    assert len(stage.begin_all()) == len(SEQUENCES)
    assert stage.guard.figures() == {}


@pytest.fixture
def open_whole(tmp_path):
    """Return a function that makes a stage of whole states, one of which is on disk."""
    writer = Stage(tmp_path, Whole(kept=BLOCKS * STATE_TOKENS))
    assert not writer.guard.begin(SEQUENCES[0])
    writer.guard.stepped(COMPUTED)
    writer.guard.close()
    return lambda states: Stage(tmp_path, states)


def test_sequences_wait_for_a_whole_state_that_is_read_once(open_whole):
    stage = open_whole(Whole())
    assert len(stage.begin_all()) == len(SEQUENCES)
    assert stage.guard.figures()["prefix_read_bytes"] == 100
    assert stage.warnings == []


@pytest.mark.parametrize("broken", ["held", "import_whole", "export_whole"])
def test_after_an_error_of_whole_states_all_is_computed(open_whole, broken):
    stage = open_whole(Whole(broken, kept=BLOCKS * STATE_TOKENS * (broken == "export_whole")))
    if broken == "export_whole":
        stage.store._entries.clear()
    assert len(stage.begin_all()) == len(SEQUENCES)
    stage.guard.stepped(COMPUTED)
    stage.guard.end(0)
    stage.guard.removed()
    (warning,) = stage.warnings
    assert f"{broken} is broken" in warning
    assert stage.guard.figures() == {}


def test_a_disk_that_does_not_answer_holds_nobody_up(open_stage, monkeypatch):
    monkeypatch.setattr(prefix_guard, "WAIT_S", 0.05)
    stage, goes_on = open_stage(States()), threading.Event()
    read = PrefixStore.read
    monkeypatch.setattr(PrefixStore, "read", lambda *args: goes_on.wait(30) and read(*args))
    assert len(stage.begin_all()) == len(SEQUENCES)
    (warning,) = stage.warnings
    assert "nothing was read" in warning
    goes_on.set()
    assert stage.guard.take(stage.delivered.get(timeout=30)) == []


def test_an_error_in_one_write_leaves_the_next_ones(open_stage, monkeypatch):
    def fail(*_):
        raise ValueError("a defect")

    stage = open_stage(States())
    writer = StateWriter(stage.store)
    with monkeypatch.context() as patched:
        patched.setattr(PrefixStore, "write", fail)
        writer.write(0, b"a" * 16, memoryview(b"state"))
        writer.flush(30)
    writer.write(0, b"b" * 16, memoryview(b"state"))
    writer.flush(30)
    assert stage.store.read(0, b"b" * 16) == b"state"
    assert stage.warnings == ["prefixes on disk: ValueError: a defect"]


def test_a_short_request_does_not_wake_the_writer(open_stage, monkeypatch):
    """Short requests are many, and each wake-up of a thread costs them more than all else here."""
    woken = []
    monkeypatch.setattr(PrefixStore, "touch", lambda *args: woken.append(args))
    monkeypatch.setattr(PrefixStore, "remove", lambda *args: woken.append(args))
    for states in (States(), Whole()):
        stage = open_stage(states)
        states.computed = lambda _: 5
        short = Sequence(id=7, tokens=TOKENS[:5], produced=0, sampling=Sampling(seed=1))
        assert not stage.guard.begin(short)
        stage.guard.stepped(Step(progress=(Progress(7, 5, 5, 0),)))
        stage.guard.end(7)
        stage.guard.removed()
        stage.guard.close()
        assert stage.warnings == []
    assert woken == []


def test_a_wait_that_ended_meanwhile_is_not_overdue(open_stage):
    stage = open_stage(States())
    assert stage.guard.begin(SEQUENCES[0])
    assert stage.guard.take(Overdue()) == []
    assert stage.guard.take(stage.delivered.get(timeout=30)) == [SEQUENCES[0]]
    assert stage.warnings == []
