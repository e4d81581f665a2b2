"""What the monitor says of this machine, and that a daemon tells it to those who listen."""

from __future__ import annotations

import os
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from lmx_host_monitor.monitor import HostMonitor
from lmx_host_monitor.settings import HostMonitorSettings

from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.settings import PluginSettings

Times = namedtuple("Times", "user system idle iowait guest")


@pytest.fixture
def monitor(tmp_path):
    return HostMonitor(5, tmp_path)


def test_the_interval_comes_from_the_config(tmp_path):
    class Settings:
        home = tmp_path

        def get(self, cls):
            return cls(interval_s=3)

    plugins = Plugins(PluginSettings(discover=False, modules=("lmx_host_monitor.plugin",)))
    assert [section.name for section in plugins.settings_sections()] == ["host_monitor"]
    (monitor,) = plugins.monitors(Settings())
    assert (monitor.name, monitor.interval_s) == ("host", 3)
    with pytest.raises(ValueError, match="interval_s"):
        HostMonitorSettings(interval_s=0)


def test_memory_and_disk_add_up(monitor):
    figures = monitor.sample()
    total = psutil.virtual_memory().total
    assert figures["memory_available_bytes"] + figures["memory_used_bytes"] == total
    assert 0 < figures["daemon_memory_bytes"] < total
    assert figures["swap_used_bytes"] >= 0
    assert figures["load_1m"] >= 0
    assert figures["disk_free_bytes"] > 0


def test_open_files_are_those_of_the_process(monitor):
    before = monitor.sample()["daemon_open_files"]
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    assert monitor.sample()["daemon_open_files"] == before + 10
    for fd in fds:
        os.close(fd)


def test_a_home_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path):
    figures = HostMonitor(5, tmp_path / "not" / "yet").sample()
    assert figures["disk_free_bytes"] > 0


def test_the_cpu_share_is_of_the_time_between_two_looks_whatever_thread_looks(
    monkeypatch, tmp_path
):
    looks = iter(
        [
            Times(user=100, system=0, idle=100, iowait=0, guest=50),
            Times(user=103, system=1, idle=103, iowait=1, guest=51),  # 4 of 8 seconds
            Times(user=109, system=1, idle=105, iowait=1, guest=51),  # 6 of 8
            Times(user=109, system=1, idle=105, iowait=1, guest=51),  # no time at all
        ]
    )
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(looks))
    monitor = HostMonitor(5, tmp_path)
    shares = []
    for _ in range(3):
        with ThreadPoolExecutor(1) as fresh:
            shares.append(fresh.submit(monitor.sample).result()["cpu_share"])
    assert shares == [0.5, 0.75, 0.0]


@pytest.mark.parametrize("error", [psutil.AccessDenied(1), FileNotFoundError(2, "/proc/stat")])
def test_what_a_system_does_not_tell_is_left_out(monkeypatch, tmp_path, error):
    def refuse(*_: object) -> None:
        raise error

    for name in ("cpu_times", "virtual_memory", "swap_memory", "Process"):
        monkeypatch.setattr(psutil, name, refuse)
    figures = HostMonitor(5, tmp_path).sample()
    assert figures.keys() == {"load_1m", "disk_free_bytes"}


def test_figures_that_a_system_has_no_name_for_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "virtual_memory", object)
    monkeypatch.delattr(psutil.Process, "num_fds")
    figures = HostMonitor(5, tmp_path).sample()
    assert figures["daemon_memory_bytes"] > 0
    assert not {"memory_available_bytes", "memory_used_bytes", "daemon_open_files"} & set(figures)
