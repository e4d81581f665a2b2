"""A child ends with its parent also where the system does not see to it, as on macOS."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from asyncio.subprocess import PIPE

import psutil
import pytest

from lmx_kernel.processes import lifeline, orphan_watch
from lmx_kernel.processes.child import ChildProcess
from lmx_kernel.processes.lifeline import exit_if_closed

# Every process of the test, as on a system without PR_SET_PDEATHSIG.
ANOTHER_SYSTEM = """
from lmx_kernel.processes import lifeline
lifeline.PR_SET_PDEATHSIG = 0
lifeline.system_ends_orphans = lambda: False
"""
# An engine that never lets the interpreter go again.
ENGINE = """
import ctypes, os
from lmx_kernel.hookspecs import hookimpl

@hookimpl
def lmx_open_engine(spec, progress):
    progress(0.5)
    ctypes.PyDLL(None).sleep(600)
"""
WORKER = """
import asyncio
from pathlib import Path
from lmx_kernel.runtime.process import WorkerProcess
from lmx_kernel.types import EngineSpec, LoadOptions, ModelCard
from lmx_kernel.worker import messages as wire

card = ModelCard(id="m", backend="b", path=Path(), format="f", architecture="a", size_bytes=0,
                 context_length=8)
options = LoadOptions(context_length=8, parallel=1, cache_tokens=8)
spec = EngineSpec(card=card, options=options, engine_module="lmxtest_stuck_engine")

async def main():
    worker = await WorkerProcess.start({}, lambda message: print(worker.pid, flush=True))
    worker.send(wire.Open(spec))
    await worker.exited

asyncio.run(main())
"""
JOB = """
import asyncio, sys
from asyncio.subprocess import PIPE
from lmx_kernel.processes.child import ChildProcess

STUCK = "import ctypes; print(flush=True); ctypes.PyDLL(None).sleep(600)"

async def main():
    child = await ChildProcess.start(sys.executable, "-c", STUCK, stdout=PIPE)
    await child.stdout.readline()
    print(child.pid, flush=True)
    await child.exited

asyncio.run(main())
"""


@pytest.fixture
def another_system(tmp_path, monkeypatch):
    """Children believe to run on a system that does not end orphans."""
    (tmp_path / "sitecustomize.py").write_text(ANOTHER_SYSTEM)
    (tmp_path / "lmxtest_stuck_engine.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("another_system")
@pytest.mark.parametrize("code", [WORKER, JOB], ids=["worker", "job"])
async def test_a_child_in_native_code_ends_with_its_parent(code):
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)
    child = psutil.Process(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, [child], 10)
    for process in alive:
        process.kill()
    assert gone == [child]


@pytest.fixture
def no_help(monkeypatch):
    """This process, on a system that does not end orphans."""
    monkeypatch.setattr(lifeline, "system_ends_orphans", lambda: False)


@pytest.mark.usefixtures("no_help")
async def test_a_child_that_ended_leaves_no_process_and_no_file_behind():
    me = psutil.Process()

    async def run():
        child = await ChildProcess.start("sleep", "600")
        groups = {os.getpgid(process.pid) for process in me.children()}
        assert os.getpgrp() not in groups  # what a terminal sends to it is not for them
        watched = len(me.children())
        await child.end(0)
        return watched

    await run()  # the loop opens files of its own at the first child
    processes, files = len(me.children()), me.num_fds()
    assert await run() == processes + 2  # the child, and who watches over it
    assert (len(me.children()), me.num_fds()) == (processes, files)


@pytest.mark.usefixtures("no_help")
async def test_a_child_that_ends_at_once_leaves_nothing_either():
    processes = len(psutil.Process().children())
    child = await ChildProcess.start("true")
    assert await child.exited == 0
    assert len(psutil.Process().children()) == processes


@pytest.mark.usefixtures("no_help")
async def test_a_child_runs_where_no_process_is_left_to_watch_over_it(monkeypatch):
    monkeypatch.setattr(orphan_watch.sys, "executable", "/nowhere/python")
    child = await ChildProcess.start("true")
    assert await child.exited == 0


@pytest.mark.usefixtures("no_help")
async def test_a_start_that_is_cancelled_leaves_no_child(monkeypatch):
    me, begun = psutil.Process(), asyncio.Event()

    async def never(group):
        begun.set()
        await asyncio.sleep(0)
        await blocked

    blocked = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(orphan_watch.OrphanWatch, "start", never)
    before = me.children()
    start = asyncio.ensure_future(ChildProcess.start("sleep", "600"))
    await begun.wait()
    [child] = set(me.children()) - set(before)
    start.cancel()
    asyncio.get_running_loop().call_later(0.1, blocked.set_result, None)
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not child.is_running()
    assert set(me.children()) == set(before)


class PollOfMacOS:
    """`select.poll` as it is there: a hang-up is told only to those who ask for it."""

    def __init__(self):
        self._poll, self._asked = REAL_POLL(), {}

    def register(self, file, events):
        self._asked[file] = events
        self._poll.register(file, events)

    def poll(self, timeout_ms):
        return [
            (file, told)
            for file, events in self._poll.poll(timeout_ms)
            if (told := events & self._asked[file])
        ]


REAL_POLL = select.poll


@pytest.mark.parametrize("poll", [REAL_POLL, PollOfMacOS])
def test_a_parent_that_is_gone_already_is_noticed_on_each_system(monkeypatch, poll):
    monkeypatch.setattr(select, "poll", poll)
    ours, theirs = socket.socketpair()
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with theirs:
        exit_if_closed(theirs.fileno())
        assert ended == []
        with ours:
            ours.sendall(b"still to read")
        exit_if_closed(theirs.fileno())
    assert ended == [0]


def test_a_system_library_without_the_call_is_no_harm(monkeypatch):
    monkeypatch.setattr(lifeline.ctypes, "CDLL", lambda name: object())
    lifeline.die_with_parent()
