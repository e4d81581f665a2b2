"""What a service manager is told, over a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile

import pytest

from lmx_kernel.daemon.sd_notify import feed_watchdog, notify
from lmx_kernel.testing.harness import running_daemon, write_config

# A daemon whose event loop gets stuck at SIGUSR1, and goes on when a file is written.
STUCK = """
import asyncio, os, signal
from contextlib import asynccontextmanager
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.daemon.sd_notify import notify

def get_stuck():
    notify("STATUS=stuck")
    open(os.environ["PIPE"]).read()

@asynccontextmanager
async def hold():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, get_stuck)
    yield

@hookimpl
def lmx_lifespan(kernel):
    return hold()
"""


@pytest.fixture
def manager():
    """A service manager's socket, and its name in the environment."""
    with (
        tempfile.TemporaryDirectory() as folder,  # a short path: sockets take no other
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.bind(f"{folder}/notify")
        sock.setblocking(False)
        yield sock, f"{folder}/notify"


async def read_until(sock, wanted):
    """Return the messages up to the one that contains ``wanted``."""
    messages = []
    while not messages or wanted not in messages[-1]:
        messages.append((await asyncio.get_running_loop().sock_recv(sock, 4096)).decode())
    return messages


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens", "@lmx-nobody-listens"])
def test_without_a_manager_nothing_happens(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_assignments_travel_in_one_message(manager, monkeypatch):
    sock, address = manager
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1", "STATUS=fine")
    assert sock.recv(4096) == b"READY=1\nSTATUS=fine"


@pytest.mark.linux("abstract sockets")
def test_an_abstract_socket(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0lmx-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@lmx-test-{os.getpid()}")
        notify("READY=1")
        assert sock.recv(4096) == b"READY=1"


@pytest.mark.parametrize(
    "variables", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}]
)
async def test_no_signs_of_life_where_nobody_waits_for_them(monkeypatch, manager, variables):
    sock, address = manager
    for name, value in (variables | {"NOTIFY_SOCKET": address}).items():
        monkeypatch.setenv(name, value)
    await feed_watchdog()
    with pytest.raises(BlockingIOError):
        sock.recv(1)


async def test_a_daemon_tells_its_manager_how_it_is(tmp_path, manager):
    sock, address = manager
    (tmp_path / "lmxtest_stuck.py").write_text(STUCK)
    os.mkfifo(tmp_path / "pipe")
    env = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "100000",
        "PYTHONPATH": str(tmp_path),
        "PIPE": str(tmp_path / "pipe"),
    }
    async with running_daemon(write_config(tmp_path, ("lmxtest_stuck",)), **env) as daemon:
        ready = (await read_until(sock, "READY=1"))[-1]
        assert daemon.url.rpartition(":")[2] in ready
        await read_until(sock, "WATCHDOG=1")

        daemon.process.send_signal(signal.SIGUSR1)
        await read_until(sock, "STATUS=stuck")
        with pytest.raises(TimeoutError):  # ten signs are due
            async with asyncio.timeout(0.5):
                await read_until(sock, "")
        (tmp_path / "pipe").write_text("")
        await read_until(sock, "WATCHDOG=1")

        daemon.process.terminate()
        await read_until(sock, "STOPPING=1")
        assert await daemon.process.wait() == 0
