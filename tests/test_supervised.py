"""What the daemon does for whoever supervises it: limits, signals, memory, and its output."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import shlex
import signal
import sys
import termios
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from lmx_kernel.daemon.open_files import raise_file_limit
from lmx_kernel.kernel.safe_mode import FILE as STARTS
from lmx_kernel.observe.log import empty_full_output
from lmx_kernel.processes.oom_score import FILE as OOM_SCORE
from lmx_kernel.processes.oom_score import raise_oom_score
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel, write_config


@asynccontextmanager
async def started(folder, *flags, shell="exec", **options):
    """Hold an `lmx serve` open, started by a shell that may set limits first; and its port."""
    command = (sys.executable, "-m", "lmx_kernel", "serve", *flags)
    command += ("--config", str(write_config(folder)))
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", f"{shell} {shlex.join(command)}"),
        stdout=PIPE,
        env={**os.environ, "LMX_HOME": str(folder), "LMX_SERVER_PORT": "0"},
        **options,
    )
    try:
        while not (line := (await process.stdout.readline()).decode()).startswith("No models"):
            assert line
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


# --- open files ----------------------------------------------------------------------------------


@pytest.mark.linux("limits of another process")
@pytest.mark.parametrize(("hard", "expected"), [("4096", 2048 + 384), ("1000", 1000)])
async def test_the_daemon_raises_the_limit_that_launchd_sets(tmp_path, hard, expected):
    async with started(tmp_path, shell=f"ulimit -n {hard}; ulimit -Sn 256; exec") as process:
        assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE) == (expected, int(hard))


class MacOS:
    """`resource` as it answers there: no soft limit above OPEN_MAX, whatever the hard one is."""

    RLIMIT_NOFILE, RLIM_INFINITY = resource.RLIMIT_NOFILE, resource.RLIM_INFINITY

    def __init__(self, most: int) -> None:
        self._most = most
        self.limits = (256, resource.RLIM_INFINITY)

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if limits[0] > self._most:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("most", "wanted", "expected"),
    [(10_240, 2432, 2432), (10_240, 50_000, 10_240), (0, 2432, 256), (10_240, 100, 256)],
)
def test_a_limit_that_cannot_be_set_is_approached(monkeypatch, most, wanted, expected):
    system = MacOS(most)
    monkeypatch.setattr("lmx_kernel.daemon.open_files.resource", system)
    assert raise_file_limit(wanted) == expected
    assert system.limits[0] == expected


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.linux("oom_score_adj")
async def test_a_worker_goes_before_the_daemon_when_memory_runs_out(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as running:
        with await running.kernel.generate(ask("m", max_tokens=1)) as answer:
            async for _ in answer:
                pass
        worker = Path(f"/proc/{running.instance('m').pid}/oom_score_adj")
        assert int(worker.read_text()) >= min(1000, int(OOM_SCORE.read_text()) + 500)


def test_a_score_never_exceeds_what_linux_takes(tmp_path):
    file = tmp_path / "oom_score_adj"
    file.write_text("800\n")
    raise_oom_score(file)
    assert file.read_text() == "1000"


def test_a_system_without_scores_is_no_problem(tmp_path):
    raise_oom_score(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# --- a closed terminal ---------------------------------------------------------------------------


async def test_a_closed_terminal_stops_the_daemon_cleanly(tmp_path):
    ours, theirs = os.openpty()
    async with started(
        tmp_path,
        stdin=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(theirs)
        os.close(ours)
        assert await process.wait() == 0
    assert json.loads((tmp_path / STARTS).read_bytes())["starts"] == []


async def test_a_second_hangup_does_not_cut_the_first_one_short(tmp_path):
    async with started(tmp_path) as process:
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
        assert await process.wait() == 0


@pytest.mark.linux("/proc")
async def test_nohup_is_respected(tmp_path):
    async with started(tmp_path, shell="trap '' HUP; exec") as process:
        process.send_signal(signal.SIGHUP)
        ignored = signal.SIGHUP in ignored_signals(process.pid)
        process.terminate()
        assert await process.wait() == 0
    assert ignored


def ignored_signals(pid):
    """Return the signals that a process ignores."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    mask = int(lines["SigIgn"], 16)
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


# --- its output ----------------------------------------------------------------------------------


async def requests_told(folder, *flags, **variables):
    """Return whether a request's line reached standard error, and the log file."""
    output = folder / "service.log"
    with output.open("ab") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        shell = "".join(
            f"{name}={value.format(stream=stream)} " for name, value in variables.items()
        )
        async with started(folder, *flags, shell=f"{shell}exec", stderr=file) as process:
            url = json.loads((folder / "run" / "daemon.json").read_bytes())["url"]
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"GET /v1/nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            )
            await reader.read()
            writer.close()
            process.terminate()
            assert await process.wait() == 0
    log = folder / "logs" / "lmx.log"
    return "/v1/nowhere" in output.read_text(), "/v1/nowhere" in log.read_text()


async def test_a_supervisors_output_does_not_grow_with_the_requests(tmp_path):
    assert await requests_told(tmp_path, "--supervised") == (False, True)


async def test_the_journal_does_not_keep_what_the_log_keeps(tmp_path):
    assert await requests_told(tmp_path, JOURNAL_STREAM="{stream}") == (False, True)


async def test_the_output_of_others_has_every_line(tmp_path):
    assert await requests_told(tmp_path, JOURNAL_STREAM="1:2") == (True, True)


async def test_a_full_file_of_the_supervisor_is_emptied_at_the_start(tmp_path):
    (tmp_path / "service.log").write_bytes(b"x" * 2_000_000)
    await requests_told(tmp_path, "--supervised")
    assert (tmp_path / "service.log").stat().st_size < 100_000


def test_an_output_that_is_short_or_no_file_is_left_alone(tmp_path):
    with (tmp_path / "short").open("ab+") as file:
        file.write(b"last words")
        file.flush()
        empty_full_output(file.fileno(), 100)
        assert (tmp_path / "short").read_bytes() == b"last words"
    reading, writing = os.pipe()
    empty_full_output(writing, 0)
    os.close(reading)
    os.close(writing)
    empty_full_output(writing, 0)
