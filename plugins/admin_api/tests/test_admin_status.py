"""What the daemon tells of itself."""

from __future__ import annotations

import platform
from importlib.metadata import version

from lmx_kernel.events import RequestFinished
from lmx_kernel.testing.fake_model import FakeModel


async def status_of(api):
    answer = await api.get("status")
    assert answer.status_code == 200
    return answer.json()


async def test_it_says_what_runs_and_what_there_is_room_for(serve):
    async with serve({"m": FakeModel()}, config="[memory]\nbudget_bytes = 5000000") as api:
        status = await status_of(api)
        assert status["version"] == version("lmx-kernel")
        assert status["python"] == platform.python_version()
        assert [one["name"] for one in status["plugins"]] == ["lmx_kernel.testing.fake"]
        assert status["models"] == []
        assert status["memory_budget_bytes"] == status["memory_available_bytes"] == 5_000_000
        assert status["memory_pressure"] == "ease"
        assert status["disk_free_bytes"] > 0
        assert status["uptime_s"] > 0


async def test_it_has_figures_of_requests(serve):
    async with serve({"m": FakeModel(memory_bytes=1000)}) as api:
        for key in ("bot", "bot", ""):
            await api.answer("m", tokens=5, key=key)
        await api.until(lambda: len(api.stage.seen(RequestFinished)) == 3)
        status = await status_of(api)
        (model,), (bot,) = status["models"], status["keys"]
        assert bot.pop("prompt_tokens") > 0
        assert bot == {"name": "bot", "open": 0, "requests": 2, "completion_tokens": 10}
        figures = model["figures"]
        assert (model["id"], model["state"], model["memory_bytes"]) == ("m", "ready", 1000)
        assert (figures["requests"], figures["completion_tokens"], figures["loads"]) == (3, 15, 1)
        assert 0 < figures["first_token_p50_s"] <= figures["first_token_p95_s"]
        assert figures["tokens_per_s"] > 0
        assert figures["load_s"] > 0
        assert (figures["failures"], figures["crashes"], figures["resumed"]) == (0, 0, 0)


async def test_it_has_figures_of_a_crash_and_of_the_answer_that_survived_it(serve):
    async with serve({"m": FakeModel(crash_at=5)}) as api:
        await api.answer("m", tokens=10)
        await api.until(lambda: api.stage.seen(RequestFinished))
        (model,) = (await status_of(api))["models"]
        figures = model["figures"]
        assert (figures["crashes"], figures["resumed"], figures["failures"]) == (1, 1, 0)
        assert (figures["requests"], figures["completion_tokens"]) == (1, 10)
        assert figures["loads"] == 2


async def test_an_unknown_path_is_told_in_the_same_shape(serve):
    async with serve({}) as api:
        for answer in (await api.get("nothing"), await api.post("status")):
            error = answer.json()["error"]
            assert answer.status_code in (404, 405)
            assert set(error) == {"message", "type", "param", "code"}
            assert error["type"] == "invalid_request_error"
