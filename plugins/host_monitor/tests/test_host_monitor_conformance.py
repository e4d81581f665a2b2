"""What every monitor does."""

from __future__ import annotations

from lmx_kernel.testing.conformance.monitor import MonitorConformance


class TestHostMonitor(MonitorConformance):
    module = "lmx_host_monitor.plugin"
    keys = frozenset({"cpu_share", "load_1m", "disk_free_bytes", "daemon_memory_bytes"})

    def config(self, folder):
        return "[host_monitor]\ninterval_s = 3"

    def test_the_interval_is_that_of_the_config(self, monitor):
        assert (monitor.name, monitor.interval_s) == ("host", 3)
