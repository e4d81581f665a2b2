"""Limits of a process's own use, also where the system refuses them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lmx_kernel.processes import limits

ON_ANOTHER_SYSTEM = {
    "limit_memory": ("resource.setrlimit", limits.limit_memory, 1 << 30),
    "limit_cpu": ("signal.setitimer", limits.limit_cpu, 1.0),
}


@pytest.mark.parametrize("name", ON_ANOTHER_SYSTEM)
@pytest.mark.parametrize("refusal", [ValueError("exceeds maximum limit"), OSError(22, "invalid")])
def test_a_limit_that_the_system_refuses_is_told_and_no_error(monkeypatch, name, refusal):
    def refuse(*arguments):
        raise refusal

    call, limit, value = ON_ANOTHER_SYSTEM[name]
    monkeypatch.setattr(f"lmx_kernel.processes.limits.{call}", refuse)
    assert limit(value) is False


def run(code):
    """Run code in a process of its own, where it may be killed."""
    imports = "from lmx_kernel.processes.limits import *\n"
    return subprocess.run([sys.executable, "-c", imports + code], capture_output=True, check=False)


def test_a_process_beyond_its_time_is_killed_while_it_never_returns_to_the_interpreter():
    ended = run("limit_cpu(0.1)\nsum(range(10**12))")
    assert ended.returncode == -signal.SIGPROF


def test_a_limit_of_time_can_be_lifted():
    ended = run("import time\nlimit_cpu(0.05)\nlimit_cpu(0)\nwhile time.process_time() < 0.5: pass")
    assert ended.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits an address space")
def test_a_process_gets_no_more_memory_than_its_limit():
    ended = run("assert limit_memory(1 << 30)\nbytearray(2 << 30)")
    assert b"MemoryError" in ended.stderr


def test_what_a_process_uses_is_known_and_what_a_dead_one_used_is_not():
    mine = limits.usage_of(os.getpid())
    assert mine.memory_bytes > 1 << 20
    assert mine.cpu_s > 0
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert limits.usage_of(child.pid) is None
