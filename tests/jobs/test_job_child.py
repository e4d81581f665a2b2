"""Work in a child: its words arrive, its errors keep their class, and it never outlives anyone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial

import psutil
import pytest

from lmx_kernel.errors import DiskFullError, InternalError, UnavailableError
from lmx_kernel.jobs.child import run_child

WORK = """
import os, signal, subprocess, sys, time
from lmx_kernel.errors import DiskFullError, UnavailableError

def add(spec, report):
    print("what libraries print is no message")
    report(1, 2, "adding")
    report(2, 2)
    return {"sum": spec["a"] + spec["b"], "word": os.environ.get("WORD")}

def fill(spec, report):
    raise DiskFullError("the disk is full")

def busy(spec, report):
    raise UnavailableError("later", param="repo", retry_after_s=7, retryable=False)

def fail(spec, report):
    raise ValueError(f"odd: {os.environ.get('WORD')}")

def leave(spec, report):
    sys.exit(3)

def die(spec, report):
    os.kill(os.getpid(), signal.SIGKILL)

def wait(spec, report):
    if spec.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    inner = subprocess.Popen(["sleep", "1000"])
    report(os.getpid(), None, str(inner.pid))
    time.sleep(1000)
"""


@pytest.fixture
def work(tmp_path):
    (tmp_path / "lmx_child_work.py").write_text(WORK)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def call(name, spec=None, report=lambda *told: None, env=None, secrets=None):
        env = {"PYTHONPATH": path, **(env or {})}
        return run_child(f"lmx_child_work:{name}", spec or {}, report, env=env, secrets=secrets)

    return call


async def test_progress_and_result_come_back(work):
    told = []
    spec = {"a": 20, "b": 22}
    result = await work("add", spec, lambda *values: told.append(values), env={"WORD": "hi"})
    assert result == {"sum": 42, "word": "hi"}
    assert told == [(1, 2, "adding"), (2, 2, "")]


async def test_an_error_of_ours_keeps_its_class_and_its_fields(work):
    with pytest.raises(DiskFullError, match="the disk is full"):
        await work("fill")
    with pytest.raises(UnavailableError, match="later") as caught:
        await work("busy")
    error = caught.value
    assert (error.param, error.retry_after_s, error.retryable) == ("repo", 7, False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fail", "exited with status 1: ValueError: odd: x"),
        ("leave", "exited with status 3"),
        ("die", "killed by SIGKILL"),
        ("missing", "exited with status 1: AttributeError"),
    ],
)
async def test_any_other_end_is_an_internal_error_with_the_last_words(work, name, words):
    with pytest.raises(InternalError) as caught:
        await work(name, env={"WORD": "x"})
    assert words in caught.value.message


async def test_secrets_reach_the_child_but_no_message(work):
    secrets = {"WORD": "canary-7f3a"}
    assert (await work("add", {"a": 1, "b": 1}, secrets=secrets))["word"] == "canary-7f3a"
    with pytest.raises(InternalError) as caught:
        await work("fail", secrets=secrets)
    assert "odd: ***" in caught.value.message
    assert "canary" not in f"{caught.value!s} {caught.value!r}"


@pytest.mark.parametrize("stubborn", [False, True])
async def test_cancelling_kills_the_child_and_what_it_started(work, monkeypatch, stubborn):
    monkeypatch.setattr("lmx_kernel.jobs.child.STOP_S", 0.2)
    began = asyncio.get_running_loop().create_future()
    report = lambda pid, total, note: began.set_result((pid, int(note)))  # noqa: E731
    task = asyncio.ensure_future(work("wait", {"stubborn": stubborn}, report))
    child, grandchild = map(psutil.Process, await began)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not child.is_running()
    await asyncio.to_thread(psutil.wait_procs, [grandchild], 5)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


async def test_a_killed_parent_leaves_no_child(tmp_path, work):
    (tmp_path / "parent.py").write_text(
        textwrap.dedent("""
            import asyncio
            from lmx_kernel.jobs.child import run_child
            report = lambda pid, total, note: print(int(pid), flush=True)
            asyncio.run(run_child("lmx_child_work:wait", {}, report))
        """)
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        str(tmp_path / "parent.py"),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    child = psutil.Process(int(await parent.stdout.readline()))
    started = child.children()
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    gone, _ = await asyncio.to_thread(partial(psutil.wait_procs, [child], timeout=10))
    for process in started:  # it had no chance to end what it started
        process.kill()
    assert gone == [child]
