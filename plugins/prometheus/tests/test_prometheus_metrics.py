"""What single events do to the page, and whose page it is."""

from __future__ import annotations

from attrs import evolve

from lmx_kernel import __version__
from lmx_kernel.events import JobChanged, MemoryPressed, RequestFinished, Sampled
from lmx_kernel.types import Usage

USAGE = Usage(
    prompt_tokens=7,
    cached_tokens=4,
    draft_tokens=5,
    accepted_draft_tokens=3,
    completion_tokens=5,
    queue_s=0.25,
    first_token_s=1.0,
    total_s=3.0,
)


def request(model="a", outcome="ok", **usage):
    return RequestFinished(id="1", model=model, outcome=outcome, usage=evolve(USAGE, **usage))


def job(state, id="1", kind="download"):  # noqa: A002
    return JobChanged(id=id, kind=kind, state=state, done=0, total=None)


def pressed(level, worker=""):
    return MemoryPressed(level=level, used_bytes=9, budget_bytes=10, worker=worker)


def test_times_are_those_of_the_request(page_after):
    page = page_after(request())
    assert page.value("lmx_queue_time_seconds_sum", model="a") == 0.25
    assert page.value("lmx_time_to_first_token_seconds_sum", model="a") == 1
    assert page.value("lmx_time_per_output_token_seconds_sum", model="a") == 0.5
    assert page.value("lmx_time_per_output_token_seconds_bucket", model="a", le="0.25") == 0
    assert page.value("lmx_time_per_output_token_seconds_bucket", model="a", le="0.5") == 1
    assert page.value("lmx_cached_tokens_total", model="a") == 4
    assert page.value("lmx_draft_tokens_total", model="a") == 5
    assert page.value("lmx_accepted_draft_tokens_total", model="a") == 3


def test_a_request_that_never_began_has_no_token_times(page_after):
    page = page_after(request(outcome="cancelled", completion_tokens=0, first_token_s=None))
    assert page.value("lmx_requests_total", outcome="cancelled") == 1
    assert page.value("lmx_queue_time_seconds_count") == 1
    assert page.value("lmx_time_to_first_token_seconds_count") == 0


def test_one_token_has_no_time_to_the_next(page_after):
    page = page_after(request(completion_tokens=1))
    assert page.value("lmx_time_to_first_token_seconds_count") == 1
    assert page.value("lmx_time_per_output_token_seconds_count") == 0


def test_jobs_are_counted_where_they_are_and_once_where_they_end(page_after):
    states = ["queued", "running", "running", "paused"]
    page = page_after(*map(job, states), job("running", id="2"))
    assert page.value("lmx_jobs", kind="download") == 2
    assert page.value("lmx_jobs", kind="download", state="paused") == 1
    assert page.value("lmx_jobs", kind="download", state="running") == 1
    page = page_after(*map(job, [*states, "running", "done"]), job("failed", id="2"))
    assert page.value("lmx_jobs") == 0
    assert page.value("lmx_jobs_ended_total", kind="download", state="done") == 1
    assert page.value("lmx_jobs_ended_total", kind="download", state="failed") == 1


def test_memory_pressure_is_counted_by_level_and_by_what_it_cost(page_after):
    page = page_after(pressed("soft"), pressed("ease"), pressed("soft"), pressed("hard", "a"))
    assert page.value("lmx_memory_pressure_changes_total", level="soft") == 2
    assert page.value("lmx_memory_pressure_changes_total", level="ease") == 1
    assert (
        page.value("lmx_memory_kills_total", model="a") == page.value("lmx_memory_kills_total") == 1
    )


def test_a_figure_that_a_monitor_no_longer_tells_is_gone(page_after):
    page = page_after(
        Sampled(monitor="host", values={"fan": 1, "heat": 40}),
        Sampled(monitor="other", values={"heat": 1}),
        Sampled(monitor="host", values={"heat": 50}),
    )
    assert page.value("lmx_monitor_value", monitor="host", name="heat") == 50
    assert page.value("lmx_monitor_value", monitor="other", name="heat") == 1
    assert page.labels("name") == {"heat"}


def test_the_page_says_what_runs(page_after):
    assert page_after().value("lmx_build_info", version=__version__) == 1
