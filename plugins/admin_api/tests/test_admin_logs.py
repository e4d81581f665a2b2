"""The log over HTTP, and what it says of changes."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.fake_model import FakeModel


async def lines(daemon, **query):
    answer = await daemon.http.get("/admin/logs", params=query)
    assert answer.status_code == 200
    return answer.json()["lines"]


async def test_a_change_leaves_a_line_with_the_name_of_the_key(serve_daemon):
    async with serve_daemon({"m": FakeModel()}, '[server]\napi_key = "hush"\n') as daemon:
        assert (await daemon.http.get("/admin/logs")).status_code == 401
        daemon.http.headers["authorization"] = "Bearer hush"
        await daemon.http.post("/admin/models/load", json={"model": "m"})
        await daemon.http.delete("/admin/models/m")
        told = await lines(daemon, event="audit")
        assert [(one["action"], one["target"], one["outcome"], one["key"]) for one in told] == [
            ("load", "m", "ok", "config"),
            ("delete", "m", "conflict", "config"),
        ]
        assert "hush" not in str(await lines(daemon))


async def test_the_log_is_filtered(serve_daemon):
    async with serve_daemon({"m": FakeModel()}) as daemon:
        for model in ("m", "none"):
            headers = {"x-request-id": f"load-{model}"}
            body = {"model": model}
            await daemon.http.post("/admin/models/load", json=body, headers=headers)
        everything = await lines(daemon)
        assert {one["event"] for one in everything} >= {"model_loaded", "request", "audit"}
        assert {one["model"] for one in await lines(daemon, model="m")} == {"m"}
        assert {one["request_id"] for one in await lines(daemon, request_id="load-none")} == {
            "load-none"
        }
        (newest,) = await lines(daemon, event="audit", limit=1)
        assert newest["target"] == "none"
        assert await lines(daemon, event="audit", since="2100-01-01T00:00:00Z") == []
        since = await lines(daemon, event="audit", since=newest["timestamp"])
        assert since == [newest]
        assert all(one["level"] == "error" for one in await lines(daemon, level="error"))


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"level": "loud"}, "level"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-01-01T00:00:00"}, "since"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(serve, query, param):
    async with serve({}) as api:
        answer = await api.get("logs", **query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_where_no_log_is_kept_that_is_said(serve):
    async with serve({}, config="[log]\nfile = false\n") as api:
        answer = await api.get("logs")
        assert answer.status_code == 404
        assert "log.file" in answer.json()["error"]["message"]
