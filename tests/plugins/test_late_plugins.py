"""Plugins and sources that do not answer in time: nobody waits for them, and they are not lost."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lmx_kernel.daemon.lifespans import Lifespans
from lmx_kernel.interfaces import PluginState
from lmx_kernel.models import source_scans
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.settings import PluginSettings
from lmx_kernel.plugins.timeouts import Caller, in_thread
from lmx_kernel.types import Location, ModelCard

SLOW = """
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel import testing
class R:
    name = "r"
    def route(self, request, models, context): return None
@hookimpl
def lmx_routers(settings):
    testing.may_answer.wait()
    return [R()]
"""


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A plugin that answers when the event that is returned is set."""
    from lmx_kernel import testing

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(testing, "may_answer", threading.Event(), raising=False)
    (tmp_path / "third_slow.py").write_text(SLOW)
    yield testing.may_answer
    testing.may_answer.set()


def test_a_plugin_that_answers_late_is_used_then(slow):
    settings = PluginSettings(discover=False, modules=("third_slow",))
    plugins = Plugins(settings, patience_s=0.01)
    assert plugins.routers(None) == []
    [status] = plugins.statuses
    assert status.state is PluginState.FAILED
    assert "no answer within" in status.reason
    assert plugins.changes.rescan({}) == []  # it is known to hang, and not waited for again
    late, told = threading.Event(), []
    plugins.changes.call_when_late(lambda name: (told.append(name), late.set()))
    slow.set()
    assert late.wait(60)
    assert plugins.changes.retry(told[0]) == ["third_slow"]
    assert [router.name for router in plugins.routers(None)] == ["r"]


def test_patience_is_shared_by_all_calls_and_others_have_their_full_time():
    hang = threading.Event()
    caller = Caller(timeout_s=60, patience_s=0.01)
    for _ in range(3):
        found = caller.call_all({"third": hang.wait, "own": lambda: 7}, hurried={"third"})
        assert found["own"] == 7
        assert isinstance(found["third"], TimeoutError)
    assert caller.hanging == {"third"}
    hang.set()


async def test_nobody_waits_for_a_call_that_hangs_at_the_end():
    hang = threading.Event()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(in_thread(hang.wait), 0.01)
    [thread] = [one for one in threading.enumerate() if one.name == "wait"]
    assert thread.daemon
    hang.set()


class Source:
    def __init__(self, name, hang=None):
        self.name, self.hang, self.looks = name, hang, 0

    def locations(self):
        self.looks += 1
        if self.hang is not None:
            self.hang.wait()
        return [Location(self.name, Path(), (self.name,))]


class Backend:
    name = "any"

    def identify(self, location):
        return [
            ModelCard(
                id=location.name,
                backend="any",
                path=location.folder,
                format="any",
                architecture="any",
                size_bytes=0,
                context_length=0,
            )
        ]


def test_a_source_that_hangs_hides_its_own_models_until_it_answers(monkeypatch):
    monkeypatch.setattr(source_scans, "LIST_S", 0.01)
    hang, fine = threading.Event(), Source("fine")
    dead = Source("dead", hang)
    catalogue = Catalogue(lambda: [dead, fine], lambda: [Backend()])
    catalogue.scan()
    catalogue.scan()
    assert list(catalogue.by_id) == ["fine"]
    assert dead.looks == 1  # one thread hangs, however often the disk is scanned
    answered = threading.Event()
    set_found = catalogue._set_found
    monkeypatch.setattr(catalogue, "_set_found", lambda found: (set_found(found), answered.set()))
    hang.set()
    assert answered.wait(60)
    assert sorted(catalogue.by_id) == ["dead", "fine"]


@asynccontextmanager
async def context(log, name, may_open):
    await may_open.wait()
    log.append(f"{name} opens")
    yield
    log.append(f"{name} closes")


async def test_contexts_open_beside_the_rest_and_close_with_their_plugin(monkeypatch):
    monkeypatch.setattr("lmx_kernel.daemon.lifespans.OPEN_S", 0.01)
    log, failed = [], []
    soon, never = asyncio.Event(), asyncio.Event()
    soon.set()
    lifespans = Lifespans(lambda name, error: failed.append((name, str(error))))

    @asynccontextmanager
    async def broken():
        raise RuntimeError("no database")
        yield

    contexts = [("a", context(log, "a", soon)), ("b", context(log, "b", never)), ("c", broken())]
    await lifespans.open(contexts)
    assert log == ["a opens"]
    assert failed == [("c", "no database")]
    await lifespans.open([("a", context(log, "new a", soon))])
    assert log == ["a opens", "a closes", "new a opens"]
    await lifespans.keep_only([])
    assert log[-1] == "new a closes"
    await lifespans.close_all()
