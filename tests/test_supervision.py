"""Background tasks come back, whatever ends them, and `/health/status` says which are down."""

from __future__ import annotations

import asyncio

import httpx2 as httpx
import pytest

from lmx_kernel.daemon import supervision
from lmx_kernel.daemon.background import background
from lmx_kernel.daemon.supervision import TaskSupervisor
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_daemon, running_kernel, write_config


@pytest.fixture
def supervisor(monkeypatch):
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.0)
    return TaskSupervisor()


class Work:
    """Begins, and goes on until it is made to fail."""

    def __init__(self, *errors):
        self.begun = asyncio.Queue()
        self.errors = list(errors)

    async def __call__(self):
        self.begun.put_nowait(asyncio.current_task())
        if self.errors:
            raise self.errors.pop(0)
        await asyncio.Event().wait()


async def test_a_task_that_fails_is_started_again(supervisor):
    work = Work(OSError(24, "Too many open files"), RuntimeError("can't start new thread"))
    supervisor.start("work", work)
    for _ in range(3):
        await work.begun.get()
    assert supervisor.problems == {}
    supervisor.stop_all()


async def test_a_task_that_somebody_cancelled_is_started_again(supervisor):
    work = Work()
    supervisor.start("work", work)
    (await work.begun.get()).cancel()
    assert await work.begun.get() is not None
    supervisor.stop_all()


async def test_a_task_that_is_down_is_named_with_its_reason(monkeypatch):
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 3600.0)
    supervisor, work = TaskSupervisor(), Work(OSError(24, "Too many open files"))
    supervisor.start("work", work)
    await work.begun.get()
    while not supervisor.problems:
        await asyncio.sleep(0)
    assert supervisor.problems == {"work": "OSError: [Errno 24] Too many open files"}
    supervisor.stop_all()
    assert supervisor.problems == {}


async def test_a_task_that_returns_is_done(supervisor):
    done = asyncio.Event()

    async def work():
        done.set()

    supervisor.start("work", work)
    await done.wait()
    await asyncio.sleep(0)
    assert supervisor.problems == {}


async def test_what_is_stopped_ends(supervisor):
    work = Work()
    supervisor.start("work", work)
    task = await work.begun.get()
    supervisor.stop("work")
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", ["rescan", "maintenance", "memory guard"])
async def test_each_task_of_the_daemon_comes_back(tmp_path, supervisor, name):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as running:
        work = background(running.assembly.kernel._booted, running.assembly)
        assert set(work) == {
            *("rescan", "maintenance", "autoload", "memory guard"),
            *("stored answers", "late plugins"),
        }
        begun = asyncio.Queue()

        async def noted():
            begun.put_nowait(asyncio.current_task())
            await work[name]()

        supervisor.start(name, noted)
        (await begun.get()).cancel()
        await begun.get()
        supervisor.stop_all()


async def test_a_scan_that_is_cancelled_does_not_end_scanning(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as running:
        catalogue = running.assembly.catalogue
        waiting = asyncio.ensure_future(catalogue.refresh())
        await asyncio.sleep(0)
        catalogue._pending_scan.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await catalogue.refresh()
        assert catalogue.find("m").id == "m"


async def test_the_status_names_tasks_that_are_down(tmp_path):
    async with (
        running_daemon(write_config(tmp_path)) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        status = (await http.get("/health/status")).json()
    assert status["task_problems"] == {}


async def test_the_guard_goes_on_when_nothing_can_be_measured(tmp_path, monkeypatch):
    def no_file(pid):
        raise OSError(24, "Too many open files")

    async with running_kernel(tmp_path, {"m": FakeModel()}) as running:
        answer = await running.kernel.generate(ask("m", max_tokens=1))
        async for _ in answer:
            pass
        guard, instance = running.assembly.guard, running.instance("m")
        await guard.look()
        before = instance.observed_bytes
        with monkeypatch.context() as patched:
            patched.setattr("psutil.Process", no_file)
            await guard.look()
        assert instance.observed_bytes == before > 0
        await guard.look()
