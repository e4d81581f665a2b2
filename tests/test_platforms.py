"""What each system says of a machine is read in one place, and each other system's answer is
simulated: macOS, Linux without /proc, containers of both kinds, and C libraries other than glibc.
"""

from __future__ import annotations

import ast
import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lmx_kernel.daemon import run_file
from lmx_kernel.daemon.sd_notify import notify
from lmx_kernel.engine.cores import usable_cores
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.http.port import find_listener
from lmx_kernel.memory import darwin, machine
from lmx_kernel.memory.machine import free_bytes, machine_bytes, process_bytes
from lmx_kernel.processes import cgroup
from lmx_kernel.processes.cgroup import cpu_limit, memory_limits
from lmx_kernel.testing.fake import FakeBackend
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel

ROOT = Path(__file__).parent.parent
GIB, MIB = 1 << 30, 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


# --- macOS ---------------------------------------------------------------------------------------


class SystemOfMacOS:
    """The functions of its C library that are called, for a machine of 16 GiB."""

    def __init__(self, wired_limit_mib=0):
        self.wired_limit_mib = wired_limit_mib
        self.footprints = {}

    def proc_pid_rusage(self, pid, flavour, usage):
        if pid.value not in self.footprints:
            return -1
        usage._obj.phys_footprint = self.footprints[pid.value]
        return 0

    def mach_host_self(self):
        return 259

    def host_statistics64(self, host, flavour, pages, count):
        assert (host.value, flavour, count._obj.value) == (259, 4, 38)
        pages._obj.free = GIB // PAGE
        pages._obj.external = 6 * GIB // PAGE  # files, those that were used lately too
        pages._obj.purgeable = 0
        return 0

    def sysctlbyname(self, name, value, size, new, new_size):
        assert name == b"iogpu.wired_limit_mb"
        ctypes.memmove(value, self.wired_limit_mib.to_bytes(4, sys.byteorder), 4)
        size._obj.value = 4
        return 0


@pytest.fixture
def macos(monkeypatch):
    """A Mac, as far as memory goes."""
    system = SystemOfMacOS()
    monkeypatch.setattr(darwin, "_library", lambda: system)
    monkeypatch.setattr(cgroup, "ROOT", Path("/nowhere"))
    monkeypatch.setattr(cgroup, "OWN", Path("/nowhere"))
    monkeypatch.setattr(machine, "PROC", Path("/nowhere"))
    memory = SimpleNamespace(total=16 * GIB, available=2 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    return system


def test_files_in_memory_are_free_on_macos(macos):
    assert machine_bytes() == 16 * GIB
    assert free_bytes() == 7 * GIB


def test_the_memory_that_a_gpu_holds_for_a_worker_counts_on_macos(macos):
    resident = process_bytes(os.getpid())
    assert resident > MIB
    macos.footprints[os.getpid()] = resident + 8 * GIB
    assert process_bytes(os.getpid()) == resident + 8 * GIB
    macos.footprints[os.getpid()] = 1  # mapped weights are in no footprint
    assert process_bytes(os.getpid()) > MIB


@pytest.mark.parametrize(("set_mib", "gib"), [(0, 16 * 2 / 3), (14 * 1024, 14), (1 << 20, 16)])
def test_a_gpu_gets_what_the_owner_of_a_mac_has_set_or_its_share(macos, set_mib, gib):
    macos.wired_limit_mib = set_mib
    assert darwin.gpu_bytes(16 * GIB) == int(gib * GIB)


def test_a_gpu_gets_a_larger_share_of_a_large_mac(macos):
    assert darwin.gpu_bytes(64 * GIB) == 48 * GIB


def test_structures_have_the_layout_of_the_headers_of_macos():
    assert ctypes.sizeof(darwin.PageCounts) == 38 * 4  # HOST_VM_INFO64_COUNT
    assert darwin.PageCounts.external.offset == 136
    assert ctypes.sizeof(darwin.ResourceUsage) == 96
    assert darwin.ResourceUsage.phys_footprint.offset == 72


@pytest.mark.macos("its C library")
def test_macos_itself_answers():
    assert darwin.footprint_bytes(os.getpid()) > MIB
    assert psutil.virtual_memory().free <= darwin.available_bytes() < machine_bytes()
    assert GIB < darwin.gpu_bytes(machine_bytes()) <= machine_bytes()


@pytest.mark.parametrize("library", [None, object()])
def test_elsewhere_nothing_is_known_of_macos(monkeypatch, library):
    monkeypatch.setattr(darwin, "_library", lambda: library)
    assert darwin.footprint_bytes(os.getpid()) is None
    assert darwin.available_bytes() is None
    assert darwin.gpu_bytes(24 * GIB) == 16 * GIB


# --- containers, and services with limits --------------------------------------------------------


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Puts control groups in place: what this process is told of its own, and files."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")

    def put(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return put


SERVICE = {  # a unit with MemoryMax= and CPUQuota=, as the machine's own tree shows it
    "app.slice/memory.max": "max\n",
    "app.slice/cpu.max": "max 100000\n",
    "app.slice/lmx.service/memory.max": f"{64 * MIB}\n",
    "app.slice/lmx.service/memory.current": f"{48 * MIB}\n",
    "app.slice/lmx.service/memory.stat": f"anon 1\ninactive_file {8 * MIB}\n",
    "app.slice/lmx.service/cpu.max": "150000 100000\n",
}
CONTAINER = {  # a namespace of its own
    "memory.max": f"{64 * MIB}\n",
    "memory.current": f"{48 * MIB}\n",
    "memory.stat": f"inactive_file {8 * MIB}\n",
    "cpu.max": "150000 100000\n",
}
CONTAINER_V1 = {  # it sees its host's path, and its own files at the top
    "memory/memory.limit_in_bytes": f"{64 * MIB}\n",
    "memory/memory.usage_in_bytes": f"{48 * MIB}\n",
    "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {8 * MIB}\n",
    "cpu/cpu.cfs_quota_us": "150000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
}
V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/app.slice/lmx.service\n", SERVICE),
        ("0::/\n", CONTAINER),
        ("0::/../../elsewhere\n", CONTAINER),
        ("", CONTAINER),
        (V1, CONTAINER_V1),
    ],
)
def test_the_limits_of_a_container_or_a_service_are_found(group, own, files):
    group(own, files)
    assert machine_bytes() == 64 * MIB
    assert free_bytes() == 24 * MIB
    assert cpu_limit() == 1.5


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"memory.max": "max\n", "cpu.max": "max 100000\n"},
        {"memory.max": "", "memory.stat": "x\n", "cpu.max": "0 0\n"},
        {"memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n", "cpu/cpu.cfs_quota_us": "-1\n"},
    ],
)
def test_without_limits_all_of_the_machine_counts(group, files):
    group("nonsense\n", files)
    assert memory_limits() == []
    assert cpu_limit() is None
    assert machine_bytes() == psutil.virtual_memory().total


def test_a_group_that_uses_more_than_its_limit_has_nothing_free(group):
    group("0::/\n", {"memory.max": "1000\n", "memory.current": "2000\n"})
    assert free_bytes() == 0


# --- a system that tells less --------------------------------------------------------------------


def refuse(error):
    def refused(*arguments, **more):
        raise error

    return refused


@pytest.fixture(params=[FileNotFoundError(2, "/proc/meminfo"), psutil.AccessDenied(1)])
def taciturn(request, monkeypatch):
    """A system on which psutil learns nothing, such as Linux without /proc."""
    for name in ("virtual_memory", "Process", "net_connections", "process_iter"):
        monkeypatch.setattr(psutil, name, refuse(request.param))
    monkeypatch.setattr(machine, "PROC", Path("/nowhere"))
    monkeypatch.setattr(cgroup, "OWN", Path("/nowhere"))


@pytest.mark.usefixtures("taciturn")
def test_memory_is_known_without_proc():
    assert MIB < free_bytes() <= machine_bytes()
    assert machine_bytes() > GIB
    assert process_bytes(os.getpid()) == 0


@pytest.mark.usefixtures("taciturn")
def test_a_daemon_is_found_without_proc(tmp_path):
    running = run_file.Running(url="http://127.0.0.1:1", pid=os.getpid(), token="t")
    with run_file.published(tmp_path, running):
        assert run_file.read(tmp_path) == running
    assert run_file.read(tmp_path) is None


@pytest.mark.usefixtures("taciturn")
def test_who_holds_a_port_need_not_be_known():
    assert find_listener(80) is None


def test_a_port_that_one_s_own_process_holds_is_explained_without_root(monkeypatch):
    """macOS tells other users' connections to root only, and psutil then tells none at all."""
    monkeypatch.setattr(psutil, "net_connections", refuse(psutil.AccessDenied(1)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert find_listener(server.getsockname()[1]) == os.getpid()


def test_a_machine_whose_free_pages_the_c_library_does_not_count(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", refuse(OSError(2, "/proc/meminfo")))
    monkeypatch.setattr(os, "sysconf", refuse(ValueError("unrecognized configuration name")))
    assert machine._memory() == (0, 0)


@pytest.mark.parametrize(
    ("physical", "allowed", "share", "expected"),
    [
        (8, range(16), None, 8),
        (8, range(4), None, 4),
        (8, range(16), 1.5, 2),
        (8, range(16), 0.5, 1),
        (8, None, None, 8),  # macOS binds no process to processors
        (None, range(6), None, 6),  # a virtual machine whose cores are not described
        (None, None, None, 10),
    ],
)
def test_an_engine_has_a_thread_for_each_core_it_may_use(
    monkeypatch, physical, allowed, share, expected
):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: physical)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr("lmx_kernel.engine.cores.cpu_limit", lambda: share)
    if allowed is None:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(allowed), raising=False)
    assert usable_cores() == expected


@pytest.mark.parametrize("address", [f"/{'long/' * 30}notify", "/x" + "é" * 60])
def test_a_socket_with_a_path_that_is_too_long_for_the_system_is_no_harm(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


# --- a smaller stack, and a drive with a memory of its own ---------------------------------------

NESTED = """
import threading
from lmx_kernel.processes.thread_stacks import set_thread_stacks
threading.stack_size(128 << 10)  # as musl gives
{call}
thread = threading.Thread(target=compile, args=["(" * 150 + "1" + ")" * 150, "code", "eval"])
thread.start()
thread.join()
"""
# The smallest stack that a C library gives, in every process; and an engine that says its own.
SMALL_STACKS = "import threading; threading.stack_size(128 << 10)"
ENGINE = """
import threading
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import hookimpl

@hookimpl
def lmx_open_engine(spec, progress):
    raise ModelUnusableError(f"stacks of {threading.stack_size()} bytes")
"""


@pytest.mark.parametrize(("call", "survives"), [("", False), ("set_thread_stacks()", True)])
def test_nested_code_fits_a_thread_s_stack_with_every_c_library(call, survives):
    """A chat template is compiled in a thread."""
    code = NESTED.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode == 0) == survives


async def test_a_worker_has_stacks_of_one_size_on_every_system(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(SMALL_STACKS)
    (tmp_path / "lmxtest_stacks.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(FakeBackend, "engine_module", "lmxtest_stacks")
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        with pytest.raises(ModelUnusableError, match="stacks of 8388608 bytes"):
            await (await stage.kernel.generate(ask("m"))).__anext__()


# --- one place for each ------------------------------------------------------------------------

# Calls that one system has and another has not, or that answer differently, and the only modules
# that make them; each of these has a fallback, which is tested here or where it is written.
PLACES = {
    "psutil.virtual_memory": ["lmx_kernel/memory/machine.py", "lmx_host_monitor/monitor.py"],
    "psutil.swap_memory": ["lmx_host_monitor/monitor.py"],
    "psutil.cpu_count": ["lmx_kernel/engine/cores.py"],
    "os.cpu_count": ["lmx_kernel/engine/cores.py"],
    "os.sched_getaffinity": ["lmx_kernel/engine/cores.py"],
    "psutil.net_connections": ["lmx_kernel/http/port.py"],
    "ctypes.CDLL": [
        "lmx_kernel/memory/darwin.py",
        "lmx_kernel/processes/lifeline.py",
        "lmx_gguf_backend/pulse.py",
    ],
    "os.fsync": ["lmx_kernel/config/disk_sync.py"],
    "threading.stack_size": [
        "lmx_kernel/processes/thread_stacks.py",
        "lmx_gguf_backend/pieces.py",
    ],
    "resource.setrlimit": ["lmx_kernel/daemon/open_files.py", "lmx_kernel/processes/limits.py"],
    "socket.AF_UNIX": ["lmx_kernel/daemon/sd_notify.py"],
    "signal.SIGALRM": ["lmx_kernel/daemon/liveness.py", "lmx_mlx_backend/deadline.py"],
}
# What only Linux or only glibc has, and nobody may call.
NOWHERE = {
    "os": "sched_setaffinity posix_fadvise posix_fallocate memfd_create pidfd_open eventfd sendfile"
    " splice copy_file_range O_TMPFILE O_DIRECT",
    "select": "epoll kqueue",
    "fcntl": "F_OFD_SETLK",
    "signal": "sigtimedwait SIGRTMIN SIGPWR",
    "socket": "SO_PEERCRED SO_BINDTODEVICE TCP_USER_TIMEOUT",
    "resource": "prlimit",
    "platform": "libc_ver freedesktop_os_release",
}
NOWHERE_NAMES = ("mallopt", "malloc_trim", "gnu_get_libc_version", "mallinfo")


def sources():
    for path in [*ROOT.glob("lmx_kernel/**/*.py"), *ROOT.glob("plugins/*/lmx_*/**/*.py")]:
        name = path.relative_to(ROOT).as_posix()
        yield name, path.read_text()


def calls(text):
    """Yield every `module.name` in a source."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def test_what_differs_between_systems_is_asked_in_one_place():
    elsewhere = [
        f"{path}: {call}"
        for path, text in sources()
        for call in set(calls(text))
        if (call in PLACES and not any(path.endswith(place) for place in PLACES[call]))
        or call in NOWHERE
    ]
    assert elsewhere == []


def test_nothing_needs_glibc():
    found = [(path, name) for path, text in sources() for name in NOWHERE_NAMES if name in text]
    assert found == []


def test_each_of_these_places_is_still_in_use():
    used = {(path, call) for path, text in sources() for call in calls(text)}
    for call, places in PLACES.items():
        for place in places:
            assert any(path.endswith(place) and name == call for path, name in used), (call, place)
