from lmx_kernel.testing.conformance.monitor import MonitorConformance


class TestKept(MonitorConformance):
    module = "lmx_kept"
    keys = frozenset({"load_1m", "free_bytes"})

    def config(self, folder):
        return "[kept]\ninterval_s = 7"

    def test_the_interval_is_that_of_the_config(self, monitor):
        assert monitor.interval_s == 7
