"""Every exit status of `lmx serve`, and what the service files make supervisors do with it.

The processes are real; the supervisors are simulated from the files that `lmx service` writes, by
the rules of systemd.service(5) and launchd.plist(5).
"""

from __future__ import annotations

import asyncio
import os
import plistlib
import re
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path

import pytest
from lmx_service.launchd import Launchd
from lmx_service.supervisor import plan_launch
from lmx_service.systemd import Systemd

from lmx_kernel.daemon.retry_pause import FILE, FORGET_S, forget_failures, next_pause_s
from lmx_kernel.testing.harness import write_config

CLEAN_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE}


# --- the simulated supervisors -------------------------------------------------------------------


class SimulatedSystemd:
    """Reads a unit."""

    name, flags = "systemd", ()

    def __init__(self) -> None:
        text = Systemd().render(plan_launch(Path("/home-of-lmx"), None, 30))
        self._unit = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))

    def restarts(self, status: int) -> bool:
        """Return whether a process that ended so is started again."""
        assert self._unit["Restart"] == "on-failure"
        if status < 0:
            return -status not in CLEAN_SIGNALS
        return status != 0 and str(status) not in self._unit["RestartPreventExitStatus"].split()

    def starts(self, status: int, most: int) -> int:
        """Return how often a process that always ends so is started, up to ``most`` times."""
        pause_s = float(self._unit["RestartSec"])
        window_s = float(self._unit["StartLimitIntervalSec"])
        burst = int(self._unit.get("StartLimitBurst", 5))
        times = [0.0]
        while len(times) < most and self.restarts(status):
            now = times[-1] + pause_s
            if window_s and sum(now - time < window_s for time in times) >= burst:
                break
            times.append(now)
        return len(times)


class SimulatedLaunchd:
    """Reads a property list."""

    name = "launchd"

    def __init__(self) -> None:
        text = Launchd().render(plan_launch(Path("/home-of-lmx"), None, 30))
        self._agent = plistlib.loads(text.encode())
        command = self._agent["ProgramArguments"]
        self.flags = tuple(command[command.index("serve") + 1 :])

    def restarts(self, status: int) -> bool:
        """Return whether a process that ended so is started again."""
        assert self._agent["KeepAlive"] == {"SuccessfulExit": False}
        return status != 0

    def starts(self, status: int, most: int) -> int:
        """Return how often a process that always ends so is started; it knows no limit."""
        return most if self.restarts(status) else 1


SUPERVISORS = {"systemd": SimulatedSystemd, "launchd": SimulatedLaunchd}


@pytest.fixture(params=SUPERVISORS)
def supervisor(request):
    return SUPERVISORS[request.param]()


# --- the real processes --------------------------------------------------------------------------


class Serve:
    """One `lmx serve` as a supervisor starts it, with what it wrote so far."""

    def __init__(self, folder: Path, flags: tuple[str, ...]) -> None:
        self.folder, self.flags = folder, flags
        self.said = b""

    async def start(self, config: str | None = None, *, file: str = "", **env: str) -> None:
        """Start it.

        :param config: the whole config; None for one that works.
        :param file: a config that is there already, or not.
        """
        path = self.folder / file if file else write_config(self.folder)
        if config is not None:
            path.write_text(config)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lmx_kernel", "serve", "--config", str(path), *self.flags),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env={
                **os.environ,
                "LMX_HOME": str(self.folder),
                "LMX_SERVER_PORT": "0",
                "PYTHONPATH": str(self.folder),
                **env,
            },
        )

    async def until(self, text: str) -> str:
        """Return the line with ``text``, once it was written."""
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            self.said += line
            if text in line.decode():
                return line.decode().strip()
        raise AssertionError(f"ended without {text!r}: {self.said.decode()}")

    async def serves(self) -> str:
        """Return the port, once it serves."""
        url = await self.until(" serves on ")
        await self.until("No ")  # the line of its models
        return url.rpartition(":")[2]

    async def end(self) -> int:
        """Return the exit status, once it ended by itself."""
        assert self.process.stdout
        self.said += await self.process.stdout.read()
        return await self.process.wait()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


@pytest.fixture
async def serve(tmp_path, supervisor):
    """Return a function that prepares an `lmx serve` of a home."""
    made = []

    def make(name="home"):
        (tmp_path / name).mkdir(exist_ok=True)
        made.append(Serve(tmp_path / name, supervisor.flags))
        return made[-1]

    yield make
    for one in made:
        await one.kill()


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def check(supervisor, request, ended: int, cell: str, word: str = "") -> None:
    """Compare what a supervisor does after an end with what the page says of it.

    :param cell: the status in the page's table.
    :param word: tells rows with the same status apart.
    """
    page = (request.config.rootpath / "docs" / "service.md").read_text()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in page.splitlines()]
    told = [r[2:] for r in rows if len(r) == 4 and cell in r[0].split(", ") and word in r[1]]
    assert len(told) == 1, (cell, word)
    words = {"starts it again": True, "leaves it": False, "leaves it (0)": False}
    assert words[told[0][list(SUPERVISORS).index(supervisor.name)]] is supervisor.restarts(ended)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_daemon_that_is_stopped_stays_down(serve, supervisor, request, number):
    daemon = serve()
    await daemon.start()
    await daemon.serves()
    daemon.process.send_signal(number)
    ended = await daemon.end()
    assert ended == 0
    check(supervisor, request, ended, "0", "SIGTERM")


async def test_a_second_start_of_what_serves_already_stays_down(serve, supervisor, request):
    first, second = serve(), serve()
    await first.start()
    port = await first.serves()
    await second.start(LMX_SERVER_PORT=port)
    ended = await second.end()
    assert ended == 0
    assert f"serves at http://127.0.0.1:{port} already" in second.said.decode()
    check(supervisor, request, ended, "0", "same home")


SLOW_PLUGIN = """
[plugins]
discover = false
modules = ["lmxtest_slow"]
required = ["lmxtest_slow"]
timeout_s = 0.5
"""
NOT_YET = {
    "no such address": (None, {"LMX_SERVER_HOST": "192.0.2.7"}, "192.0.2.7"),
    "no such name": (None, {"LMX_SERVER_HOST": "lmx.invalid"}, "lmx.invalid"),
    "slow plugin": (SLOW_PLUGIN, {}, "lmxtest_slow: TimeoutError"),
}


@pytest.mark.parametrize("case", NOT_YET)
async def test_what_is_not_there_yet_is_tried_for_ever(serve, supervisor, request, case):
    config, env, reason = NOT_YET[case]
    daemon = serve()
    (daemon.folder / "lmxtest_slow.py").write_text("import time\ntime.sleep(1000)\n")
    await daemon.start(config, LMX_SERVER_API_KEY="Q7h-x2Lp" * 4, **env)
    ended = await daemon.end()
    assert ended == 75, daemon.said
    assert reason in daemon.said.decode()
    assert supervisor.starts(ended, most=1000) == 1000
    check(supervisor, request, ended, "75")


async def test_a_config_on_a_disk_that_comes_later_is_tried_again(serve, supervisor, request):
    daemon = serve()
    write_config(daemon.folder).rename(daemon.folder / "elsewhere.toml")
    await daemon.start(file="config.toml")
    ended = await daemon.end()
    assert ended == 75, daemon.said
    check(supervisor, request, ended, "75")


NEVER = {
    "a section": "[sevrer]\n",
    "a plugin": "[plugins]\ndiscover = false\nrequired = ['nowhere']\n",
    "no key": "[plugins]\ndiscover = false\n[server]\nhost = '0.0.0.0'\n",
    "no host name": f"[plugins]\ndiscover = false\n[server]\nhost = '{'x' * 64}.lan'\n",
}


@pytest.mark.parametrize("case", NEVER)
async def test_a_wrong_config_stays_down(serve, supervisor, request, case):
    daemon = serve()
    key = {} if case == "no key" else {"LMX_SERVER_API_KEY": "Q7h-x2Lp" * 4}
    await daemon.start(NEVER[case], **key)
    ended = await daemon.end()
    assert ended == (0 if supervisor.flags else 78), daemon.said
    assert b"Traceback" not in daemon.said
    check(supervisor, request, ended, "78")


async def test_a_port_of_another_program_is_tried_until_it_is_free(
    serve, supervisor, request, taken
):
    daemon = serve()
    port = str(taken.getsockname()[1])
    await daemon.start(LMX_SERVER_PORT=port)
    ended = await daemon.end()
    assert ended == 98, daemon.said
    assert f"Port {port} is in use" in daemon.said.decode()
    assert supervisor.starts(ended, most=1000) == 1000
    check(supervisor, request, ended, "98")
    taken.close()
    await daemon.start(LMX_SERVER_PORT=port)
    assert await daemon.serves() == port


async def test_a_port_of_another_home_is_no_success(serve, supervisor, request):
    first, second = serve(), serve("another")
    await first.start()
    port = await first.serves()
    await second.start(LMX_SERVER_PORT=port)
    ended = await second.end()
    assert ended == 98
    assert "LMX of another home" in second.said.decode()
    check(supervisor, request, ended, "98")


async def test_a_home_that_another_port_serves_is_refused(serve, supervisor, request):
    first, second = serve(), serve()
    await first.start()
    port = await first.serves()
    told = (first.folder / "run" / "daemon.json").read_bytes()
    await second.start()
    ended = await second.end()
    assert ended == 98
    assert f"serves at http://127.0.0.1:{port}" in second.said.decode()
    assert "LMX_HOME" in second.said.decode()
    assert (first.folder / "run" / "daemon.json").read_bytes() == told
    check(supervisor, request, ended, "98")


async def test_a_home_whose_daemon_is_stuck_is_tried_again(serve, supervisor, request):
    first, second = serve(), serve()
    await first.start()
    port = await first.serves()
    first.process.send_signal(signal.SIGSTOP)
    await second.start(LMX_SERVER_PORT=port)
    ended = await second.end()
    assert ended == 98
    assert "does not answer" in second.said.decode()
    check(supervisor, request, ended, "98")


FAULT = """
import asyncio
from contextlib import asynccontextmanager
from lmx_kernel.hookspecs import hookimpl

def leave():
    raise SystemExit(1)

@asynccontextmanager
async def hold():
    asyncio.get_running_loop().call_soon(leave)
    yield

@hookimpl
def lmx_lifespan(kernel):
    return hold()
"""


async def test_a_fault_is_started_again(serve, supervisor, request):
    daemon = serve()
    (daemon.folder / "lmxtest_fault.py").write_text(FAULT)
    await daemon.start("[plugins]\ndiscover = false\nmodules = ['lmxtest_fault']\n")
    ended = await daemon.end()
    assert ended == 1, daemon.said
    check(supervisor, request, ended, "1")


async def test_an_argument_that_this_version_does_not_know(serve, supervisor, request):
    daemon = serve()
    daemon.flags = (*daemon.flags, "--nonsense")
    await daemon.start()
    ended = await daemon.end()
    assert ended == 2, daemon.said
    check(supervisor, request, ended, "2")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_daemon_that_was_killed_is_started_again(serve, supervisor, request, number):
    if number == signal.SIGABRT and supervisor.name == "launchd":
        pytest.skip("launchd has no watchdog that sends SIGABRT")
    daemon = serve()
    await daemon.start()
    await daemon.serves()
    daemon.process.send_signal(number)
    ended = await daemon.end()
    assert ended == -number
    check(supervisor, request, ended, number.name)


# --- a loop that is stuck ------------------------------------------------------------------------

# Stuck at SIGUSR1, in native code that keeps the interpreter lock.
STUCK = """
import asyncio, ctypes, signal
from contextlib import asynccontextmanager
from lmx_kernel.daemon import liveness
from lmx_kernel.hookspecs import hookimpl

liveness.LIMIT_S = 2.0

@asynccontextmanager
async def hold():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ctypes.PyDLL(None).pause)
    is_armed = signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0)
    print("armed" if is_armed else "not armed", flush=True)
    yield

@hookimpl
def lmx_lifespan(kernel):
    return hold()
"""
STUCK_CONFIG = "[plugins]\ndiscover = false\nmodules = ['lmxtest_stuck']\n"


async def test_a_stuck_loop_ends_the_daemon_where_nobody_else_watches(serve, supervisor, request):
    daemon = serve()
    (daemon.folder / "lmxtest_stuck.py").write_text(STUCK)
    await daemon.start(STUCK_CONFIG)
    armed = await daemon.until("armed")
    await daemon.serves()
    if supervisor.name == "systemd":
        assert armed == "not armed"  # systemd's own watchdog: tests/test_notify.py
        daemon.process.terminate()
        assert await daemon.end() == 0
        return
    assert armed == "armed"
    daemon.process.send_signal(signal.SIGUSR1)
    ended = await daemon.end()
    assert ended == -signal.SIGALRM
    assert b"most recent call first" in daemon.said  # where it was stuck
    check(supervisor, request, ended, "SIGALRM")


async def test_a_watchdog_of_the_supervisor_is_enough(serve, supervisor):
    daemon = serve()
    (daemon.folder / "lmxtest_stuck.py").write_text(STUCK)
    await daemon.start(STUCK_CONFIG, WATCHDOG_USEC="30000000")
    assert await daemon.until("armed") == "not armed"


async def test_a_daemon_that_is_watched_stops_as_any_other(serve, supervisor):
    daemon = serve()
    (daemon.folder / "lmxtest_stuck.py").write_text(STUCK)
    await daemon.start(STUCK_CONFIG)
    await daemon.serves()
    daemon.process.terminate()
    assert await daemon.end() == 0


# --- pauses --------------------------------------------------------------------------------------


async def test_a_supervised_daemon_pauses_longer_after_each_failure(
    serve, supervisor, tmp_path, taken
):
    daemon = serve()
    env = {"LMX_SERVER_PORT": str(taken.getsockname()[1])}
    if supervisor.name == "systemd":
        env["NOTIFY_SOCKET"] = str(tmp_path / "nobody")
    for _ in range(3):
        next_pause_s(daemon.folder)
    await daemon.start(**env)
    await daemon.until("next attempt follows in 20 s")
    daemon.process.terminate()  # it does not keep a supervisor waiting that wants it to stop
    assert await daemon.end() == -signal.SIGTERM
    taken.close()
    await daemon.start(**env)
    await daemon.serves()
    assert next_pause_s(daemon.folder) == 0


def test_pauses_grow_to_a_limit_and_are_forgotten(tmp_path):
    pauses = [next_pause_s(tmp_path) for _ in range(9)]
    assert pauses == [0, 5, 10, 20, 40, 80, 120, 120, 120]
    assert next_pause_s(tmp_path, time.time() + FORGET_S) == 0
    assert next_pause_s(tmp_path) == 5
    forget_failures(tmp_path)
    assert next_pause_s(tmp_path) == 0


@pytest.mark.parametrize("damage", ["", "x", "nan", "-1", "1e999"])
def test_a_damaged_note_of_the_pause_makes_no_other_than_a_valid_one(tmp_path, damage):
    next_pause_s(tmp_path)
    (tmp_path / FILE).write_text(damage)
    assert 0 <= next_pause_s(tmp_path) <= 120


def test_a_home_that_cannot_be_written_makes_no_pause(tmp_path):
    (tmp_path / "run").write_text("in the way")
    assert [next_pause_s(tmp_path) for _ in range(2)] == [0, 0]
