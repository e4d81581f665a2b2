"""What a daemon shows at /metrics of what happened to it."""

from __future__ import annotations

import asyncio

from lmx_kernel.testing.fake_model import FakeModel

CANARY = "canary-51fe0b"
MIB = 1024**2


def ended(model, count=1, outcome="ok"):
    return lambda page: page.value("lmx_requests_total", model=model, outcome=outcome) == count


async def test_requests_and_their_tokens_are_counted_by_model(serve):
    async with serve({"a": FakeModel(), "b": FakeModel()}) as daemon:
        assert [await daemon.ask(model) for model in ("a", "b", "b")] == [200] * 3
        page = await daemon.page_when(ended("b", 2))
        assert page.value("lmx_requests_total", model="a", outcome="ok") == 1
        assert page.value("lmx_generated_tokens_total", model="a") == 3
        assert page.value("lmx_generated_tokens_total", model="b") == 6
        assert page.value("lmx_prompt_tokens_total", model="b") > 0
        for name in ("queue_time", "time_to_first_token", "time_per_output_token"):
            assert page.value(f"lmx_{name}_seconds_count", model="b") == 2
        assert page.value("lmx_load_seconds_count", model="b") == 1
        assert page.value("lmx_load_seconds_sum", model="b") > 0


async def test_what_runs_now_is_told_as_of_now(serve):
    script = FakeModel(tokens_per_s=50, memory_bytes=1234)
    async with serve({"a": script}) as daemon:
        answer = asyncio.create_task(daemon.ask("a", max_tokens=4000))
        page = await daemon.page_when(lambda page: page.value("lmx_requests_running", model="a"))
        assert page.value("lmx_model_state", model="a", state="ready") == 1
        assert page.value("lmx_worker_reserved_bytes", model="a") == 1234
        assert page.value("lmx_memory_reserved_bytes") == 1234
        assert page.value("lmx_memory_budget_bytes") > 1234
        answer.cancel()
        page = await daemon.page_when(ended("a", outcome="cancelled"))
        assert page.value("lmx_requests_running", model="a") == 0


async def test_a_crash_and_the_streams_that_survive_it(serve):
    async with serve({"a": FakeModel(crash_at=5)}) as daemon:
        assert await daemon.ask("a", max_tokens=10) == 200
        page = await daemon.page_when(ended("a"))
        assert page.value("lmx_worker_crashes_total", model="a") == 1
        assert page.value("lmx_resumed_streams_total", model="a") == 1
        assert page.value("lmx_failed_streams_total", model="a") == 0
        assert page.value("lmx_generated_tokens_total", model="a") == 10
        assert page.value("lmx_load_seconds_count", model="a") == 2


async def test_a_stream_that_crashes_twice_is_told_as_failed(serve):
    async with serve({"a": FakeModel(poison="poison")}) as daemon:
        assert await daemon.ask("a", "poison") >= 500
        page = await daemon.page_when(ended("a", outcome="engine_crashed"))
        assert page.value("lmx_resumed_streams_total", model="a") == 1
        assert page.value("lmx_failed_streams_total", model="a") == 1


async def test_a_load_that_fails_is_counted_by_its_code(serve):
    async with serve({"a": FakeModel(load_error="no such tensor")}) as daemon:
        assert await daemon.ask("a") >= 400
        page = await daemon.page_when(lambda page: page.value("lmx_load_failures_total"))
        assert page.value("lmx_load_failures_total", model="a", code="model_unusable") == 1


async def test_series_go_on_over_a_swap(serve):
    scripts = {"a": FakeModel(memory_bytes=200 * MIB), "b": FakeModel(memory_bytes=200 * MIB)}
    async with serve(scripts, config=f"[memory]\nbudget_bytes = {300 * MIB}") as daemon:
        assert [await daemon.ask(model) for model in ("a", "b", "a")] == [200] * 3
        page = await daemon.page_when(ended("a", 2))
        assert page.value("lmx_requests_total", model="b") == 1
        assert page.value("lmx_load_seconds_count", model="a") == 2
        assert page.value("lmx_unloads_total", model="a") == 1
        assert page.value("lmx_unloads_total", model="b") == 1
        assert page.labels("reason") <= {"evicted", "turn"}


async def test_neither_prompts_nor_unknown_names_are_shown(serve):
    async with serve({"a": FakeModel()}) as daemon:
        assert await daemon.ask("a", CANARY) == 200
        assert await daemon.ask(CANARY) == 404
        page = await daemon.page_when(ended("", 1, "model_not_found"))
        assert page.value("lmx_requests_total", model="", outcome="model_not_found") == 1
        assert page.labels("model") == {"", "a"}
        assert CANARY not in page.text


async def test_what_a_monitor_sees_is_shown(serve):
    async with serve({"a": FakeModel()}, more=("host_monitor",)) as daemon:
        page = await daemon.page_when(lambda page: "lmx_monitor_value" in page.names)
        free = page.value("lmx_monitor_value", monitor="host", name="memory_available_bytes")
        assert free > 0


async def test_only_reading_is_allowed(serve):
    async with serve({"a": FakeModel()}) as daemon:
        assert (await daemon.http.head("/metrics")).status_code == 200
        refused = await daemon.http.post("/metrics")
        assert refused.status_code == 405
        assert refused.json()["error"]["message"]
