"""The package as the kernel meets it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lmx_prometheus import plugin

from lmx_kernel.errors import UnauthorizedError
from lmx_kernel.events import WorkerCrashed
from lmx_kernel.plugins.metrics import PluginMetrics


def test_the_entry_point_leads_to_the_hooks(load):
    (status,) = [status for status in load().statuses if status.state == "active"]
    assert (status.name, status.reason) == ("prometheus", "")
    assert status.hooks == ("lmx_api_surfaces", "lmx_event")


def test_two_kernels_in_one_process_do_not_share_what_they_count(load, page_of):
    here, there = load(), load()
    ((_, tell),) = here.observers()
    tell(WorkerCrashed(model="a", reason="", resumed=1, failed=0))
    assert page_of(here).value("lmx_worker_crashes_total", model="a") == 1
    assert page_of(there).value("lmx_worker_crashes_total", model="a") == 0


def test_the_status_is_that_of_the_scrape(load, page_of):
    page = page_of(load())
    assert page.value("lmx_uptime_seconds") == 9.5
    assert page.value("lmx_safe_mode") == 1
    assert page.value("lmx_memory_machine_bytes") == 2000
    assert page.value("lmx_memory_available_bytes") == 900
    assert page.value("lmx_memory_observed_bytes") == 90
    assert page.value("lmx_memory_pressure", level="soft") == 1
    assert page.value("lmx_model_state", model="a", state="ready") == 1
    assert page.value("lmx_model_state", model="b", state="absent") == 1
    assert page.value("lmx_requests_running", model="a") == 2
    assert page.value("lmx_requests_waiting", model="a") == 3
    assert page.value("lmx_worker_reserved_bytes", model="a") == 100
    assert page.value("lmx_worker_observed_bytes", model="a") == 90
    assert page.value("lmx_engine_memory_bytes", model="a") == 80
    assert page.value("lmx_engine_cache_tokens", model="a") == 50
    assert page.value("lmx_engine_value", model="a", name="kept_prefixes") == 2
    assert page.value("lmx_key_requests_open", key="bot") == 2
    assert page.value("lmx_key_requests_total", key="bot") == 5
    assert page.value("lmx_key_tokens_total", key="bot", kind="prompt") == 30
    assert page.value("lmx_key_tokens_total", key="bot", kind="completion") == 20


def test_metrics_of_other_plugins_are_shown(load, kernel, page_of):
    metrics = PluginMetrics("hello.world")
    metrics.counter("greetings", "Greetings.", ["how"]).add(2, how="loud")
    metrics.gauge("guests", "Guests.").set(-1)
    for value in (0.5, 3, 30):
        metrics.histogram("stay_seconds", "Stays.", [1, 10]).observe(value)
    kernel.metrics = metrics.read
    page = page_of(load())
    assert page.value("lmx_hello_world_greetings_total", how="loud") == 2
    assert page.value("lmx_hello_world_guests") == -1
    stay = "lmx_hello_world_stay_seconds"
    assert [page.value(f"{stay}_bucket", le=le) for le in ("1.0", "10.0", "+Inf")] == [1, 2, 3]
    assert (page.value(f"{stay}_count"), page.value(f"{stay}_sum")) == (3, 33.5)


def test_the_module_has_nothing_else():
    with pytest.raises(AttributeError, match="nothing"):
        _ = plugin.nothing


def test_errors_say_their_code_and_message(load, kernel):
    (surface,) = load().api_surfaces(kernel)
    error = UnauthorizedError("a key, please")
    assert surface.render_error(error) == {
        "error": {"code": "unauthorized", "message": "a key, please"}
    }


def test_what_is_documented_is_what_is_served(load, kernel):
    (surface,) = load().api_surfaces(kernel)
    routes = [path for path, _ in surface.routes()]
    assert [operation.path for operation in surface.operations()] == routes == ["/metrics"]
    assert surface.example("http://host:1", "a") == "curl http://host:1/metrics"


def test_importing_it_imports_no_engine():
    code = "import sys, lmx_prometheus.plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "llama_cpp", "mlx"} & set(done.stdout.split())
