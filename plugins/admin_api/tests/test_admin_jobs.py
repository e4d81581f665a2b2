"""Long work: started, watched and stopped by its id."""

from __future__ import annotations

import pytest

from lmx_kernel.events import JobChanged, RequestFinished
from lmx_kernel.testing.fake_model import FakeModel


async def begun(api, **spec):
    """Start a download and return it when it moves."""
    answer = await api.post("downloads", **spec)
    assert answer.status_code == 202
    job_id = answer.json()["id"]
    await api.until(lambda: api.stage.kernel.jobs.get(job_id).total)
    return (await api.get(f"downloads/{job_id}")).json()


async def ended(api, job_id, state):
    await api.until(
        lambda: any(e.id == job_id and e.state == state for e in api.stage.seen(JobChanged))
    )
    return (await api.get(f"jobs/{job_id}")).json()


async def test_a_download_is_a_job_that_can_be_watched_to_its_end(serve, downloads, tmp_path):
    async with serve({}, downloads) as api:
        job = await begun(api, repo="acme/x", quantization="Q4")
        assert (job["kind"], job["state"], job["unit"]) == ("download", "running", "bytes")
        assert (job["done"], job["total"]) == (1_000_000, 4_000_000)
        assert job["spec"] == {"repo": "acme/x", "quantization": "Q4", "files": None}
        (tmp_path / "go").touch()
        job = await ended(api, job["id"], "done")
        assert (job["result"], job["error"]) == ({"bytes": 4_000_000}, None)
        assert (await api.get("downloads")).json()["jobs"] == [job]
        assert api.audit() == [("download", "repo=acme/x quantization=Q4", "ok")]


async def test_identical_downloads_are_one_job(serve, downloads):
    async with serve({}, downloads) as api:
        jobs = [(await api.post("downloads", repo="acme/x")).json()["id"] for _ in range(5)]
        other = (await api.post("downloads", repo="acme/y")).json()["id"]
        assert len(set(jobs)) == 1
        assert {one["id"] for one in (await api.get("jobs")).json()["jobs"]} == {jobs[0], other}


async def test_a_job_of_any_kind_is_started_by_its_name(serve, downloads, tmp_path):
    async with serve({}, downloads) as api:
        wanted = {"kind": "download", "spec": {"repo": "acme/x"}}
        answer = await api.post("jobs", **wanted)
        assert (answer.status_code, answer.json()["kind"]) == (202, "download")
        again = (await api.post("downloads", repo="acme/x")).json()
        assert again["id"] == answer.json()["id"]
        assert api.audit()[0] == ("download", "repo=acme/x", "ok")
        unknown = await api.post("jobs", **wanted | {"kind": "none"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
        wrong = await api.post("jobs", **wanted | {"spec": {"repo": 1}})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "repo")


@pytest.mark.parametrize("at", ["downloads", "jobs"])
async def test_a_job_is_paused_resumed_and_cancelled(serve, downloads, at):
    async with serve({}, downloads) as api:
        job = await begun(api, repo="acme/x")
        states = []
        for action in ("pause", "pause", "resume", "cancel", "cancel"):
            answer = await api.post(f"{at}/{job['id']}/{action}")
            states.append((answer.status_code, answer.json()["state"]))
        assert states[0] == states[1] == (200, "paused")
        assert states[2] in ((200, "queued"), (200, "running"))
        assert states[3] == states[4] == (200, "cancelled")
        assert downloads.discarded == ["acme/x"]
        late = await api.post(f"{at}/{job['id']}/resume")
        assert (late.status_code, late.json()["error"]["code"]) == (409, "conflict")
        assert api.audit()[-1] == ("resume", job["id"], "conflict")


async def test_a_job_that_fails_says_why(serve, downloads):
    async with serve({}, downloads) as api:
        job = (await api.post("downloads", repo="acme/missing")).json()
        job = await ended(api, job["id"], "failed")
        assert job["error"] == {
            "code": "model_not_found",
            "message": "the hub has no acme/missing",
        }


async def test_an_id_is_of_a_job_of_its_kind_or_of_none(serve, downloads):
    async with serve({"m": FakeModel()}, downloads) as api:
        bench = (await api.post("benchmark", model="m", rounds=1)).json()["id"]
        assert (await api.get(f"jobs/{bench}")).status_code == 200
        for path in (f"downloads/{bench}", "downloads/none", "jobs/none"):
            answer = await api.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert (await api.post(f"downloads/{bench}/cancel")).status_code == 404
        only = (await api.get("jobs", kind="download")).json()["jobs"]
        assert only == []


async def test_the_newest_jobs_are_listed_and_a_limit_says_how_many(serve, downloads):
    async with serve({}, downloads) as api:
        ids = [(await api.post("downloads", repo=f"acme/{n}")).json()["id"] for n in range(101)]
        for at in ("jobs", "downloads"):
            listed = [one["id"] for one in (await api.get(at)).json()["jobs"]]
            assert listed == ids[:0:-1], "a hundred of them, without the oldest"
            only = (await api.get(at, limit=2)).json()["jobs"]
            assert [one["id"] for one in only] == ids[:-3:-1]
        for at in ("jobs", "downloads", "benchmarks"):
            wrong = await api.get(at, limit=0)
            assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "limit")


async def test_without_a_plugin_that_can_it_is_said(serve):
    async with serve({}) as api:
        for path in ("downloads", "models/convert"):
            answer = await api.post(path, repo="acme/x")
            assert answer.status_code == 404
            assert "no active plugin offers" in answer.json()["error"]["message"]
        assert (await api.get("downloads")).json() == {"jobs": []}


@pytest.mark.parametrize(
    ("body", "param"), [({}, "repo"), ({"repo": 1}, "repo"), ({"repo": "a/b", "x": 1}, "x")]
)
async def test_a_spec_is_checked_by_its_kind(serve, downloads, body, param):
    async with serve({}, downloads) as api:
        answer = await api.post("downloads", **body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


# --- benchmarks ----------------------------------------------------------------------------------


async def test_a_benchmark_measures_and_is_listed(serve):
    async with serve({"m": FakeModel()}) as api:
        wish = {"model": "m", "prompt_tokens": 100, "max_tokens": 10, "parallel": 2, "rounds": 1}
        answer = await api.post("benchmark", **wish)
        assert answer.status_code == 202
        job = await ended(api, answer.json()["id"], "done")
        result = job["result"]
        assert result["model"] == "m"
        for figure in ("first_token_s", "prompt_tokens_per_s", "parallel_tokens_per_s"):
            assert result[figure] > 0, figure
        # One to warm up, one alone, two at once; none knew the prompt of another.
        asked = [event.usage for event in api.stage.seen(RequestFinished)]
        assert [usage.prompt_tokens for usage in asked] == [100] * 4
        assert [usage.completion_tokens for usage in asked] == [2, 10, 10, 10]
        assert not any(usage.cached_tokens for usage in asked)
        assert job["done"] == 1
        assert (await api.get("benchmarks")).json()["jobs"] == [job]


async def test_a_benchmark_of_what_cannot_answer_fails_with_the_reason(serve):
    async with serve({"m": FakeModel(load_error="no such tensor")}) as api:
        assert (await api.post("benchmark", model="none")).status_code == 404
        job = (await api.post("benchmark", model="m")).json()
        job = await ended(api, job["id"], "failed")
        assert job["error"]["code"] == "model_unusable"
        wrong = await api.post("benchmark", model="m", rounds=0)
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "rounds")


async def test_a_cancelled_benchmark_leaves_nothing_running(serve):
    async with serve({"m": FakeModel(tokens_per_s=100)}) as api:
        job = (await api.post("benchmark", model="m", max_tokens=4000)).json()
        await api.until(lambda: api.stage.kernel.status().models)
        assert (await api.post(f"jobs/{job['id']}/cancel")).json()["state"] == "cancelled"
        (model,) = api.stage.kernel.status().models
        assert (model.running, model.waiting) == (0, 0)
