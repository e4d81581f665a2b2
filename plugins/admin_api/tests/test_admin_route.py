"""Where a request would go."""

from __future__ import annotations

import pytest

from lmx_kernel.events import LoadStarted
from lmx_kernel.testing.fake_model import FakeModel

SCRIPTS = {"m": FakeModel(), "vectors": FakeModel(embeds=True)}


async def route(api, model, **fields):
    answer = await api.post("route", model=model, prompt="hello", **fields)
    assert answer.status_code == 200
    return answer.json()


async def test_a_model_is_named_and_neither_loaded_nor_noted(serve):
    async with serve(SCRIPTS) as api:
        found = await route(api, "M")
        assert (found["asked"], found["model"], found["chain"]) == ("M", "m", ["M"])
        assert found["reason"] == "asked for by name"
        assert found["skipped"] == []
        assert not api.stage.seen(LoadStarted)
        assert api.stage.kernel.status().models == ()
        assert api.stage.kernel.decisions() == []


async def test_a_model_that_would_refuse_is_skipped_with_the_reason(serve):
    async with serve(SCRIPTS, config="[queue]\nmax_waiting = 0\n") as api:
        for model, reason in [
            ("none", "not installed"),
            ("vectors", "vectors makes embeddings only; it does not generate text"),
            ("m", "its queue is full"),
        ]:
            found = await route(api, model)
            assert found["model"] == ""
            assert found["skipped"] == [{"model": model, "reason": reason}]


async def test_a_model_that_requests_do_not_load_is_skipped_until_it_is_loaded(serve):
    async with serve(SCRIPTS, config="[models]\njit = false\n") as api:
        assert (await route(api, "m"))["skipped"][0]["reason"].startswith("it is not loaded")
        assert (await api.post("models/load", model="m")).status_code == 200
        assert (await route(api, "m"))["model"] == "m"


@pytest.mark.parametrize(
    ("body", "param"),
    [({"prompt": "x"}, "model"), ({"model": "m"}, "prompt"), ({"max_tokens": 0}, "max_tokens")],
)
async def test_a_question_is_checked(serve, body, param):
    async with serve({}) as api:
        full = {"model": "m", "prompt": "x"} if param == "max_tokens" else {}
        answer = await api.post("route", **full | body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
