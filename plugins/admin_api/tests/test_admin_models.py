"""Models: listed, loaded, unloaded, deleted, and what they would take."""

from __future__ import annotations

import asyncio
import json

import pytest
from attrs import asdict

from lmx_kernel.errors import EngineCrashedError
from lmx_kernel.events import LoadFailed, LoadStarted, ModelLoaded, ModelUnloaded
from lmx_kernel.runtime.breaker import MAX_IN_A_ROW
from lmx_kernel.testing.fake_model import SUFFIX, FakeModel

BUDGET = "[memory]\nbudget_bytes = 1500\n"
HALF, MOST, GIANT = (
    FakeModel(memory_bytes=700),
    FakeModel(memory_bytes=1200),
    FakeModel(memory_bytes=9999),
)


def model_file(tmp_path, name="m"):
    return tmp_path / f"{name}{SUFFIX}"


# --- looking -------------------------------------------------------------------------------------


async def test_the_list_says_of_each_model_whether_it_fits_and_why_not(serve, tmp_path):
    model_file(tmp_path, "broken").write_text("{")
    async with serve({"fits": HALF, "giant": GIANT}, config=BUDGET) as api:
        models = {one["id"]: one for one in (await api.get("models")).json()["models"]}
        assert list(models) == ["broken", "fits", "giant"]
        fits, giant, broken = models["fits"], models["giant"], models["broken"]
        assert (fits["fits"], fits["problem"], fits["status"]) == (True, None, None)
        assert fits["estimate"]["needed_bytes"] == 700
        assert (fits["format"], fits["backend"], fits["context_length"]) == ("fake", "fake", 4096)
        assert not giant["fits"]
        assert "available" in giant["problem"]
        assert giant["estimate"]["needed_bytes"] == 9999
        assert (broken["fits"], broken["estimate"]) == (False, None)
        assert "not a script" in broken["problem"]


async def test_the_list_is_had_without_estimates(serve):
    async with serve({"m": HALF}) as api:
        (model,) = (await api.get("models", fit="false")).json()["models"]
        assert (model["fits"], model["estimate"], model["problem"]) == (None, None, None)


async def test_a_model_is_shown_by_any_of_its_names_with_its_state(serve):
    async with serve({"Tiny": HALF}, config=BUDGET) as api:
        await api.post("models/load", model="Tiny")
        model = (await api.get("models/tiny")).json()
        assert (model["id"], model["fits"]) == ("Tiny", True)
        assert model["status"]["state"] == "ready"
        assert (await api.get("models/tiny", fit="false")).json()["estimate"] is None
        missing = await api.get("models/none")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_new_file_is_there_after_a_rescan(serve, tmp_path):
    async with serve({"m": HALF}) as api:
        model_file(tmp_path, "new").write_text(json.dumps(asdict(FakeModel())))
        models = (await api.post("models/rescan")).json()["models"]
        assert [one["id"] for one in models] == ["m", "new"]
        assert api.audit() == [("rescan", "models", "ok")]


# --- loading -------------------------------------------------------------------------------------


async def test_a_load_answers_when_the_model_is_ready(serve):
    async with serve({"m": FakeModel(load_s=0.05, memory_bytes=700)}) as api:
        wish = {"context_length": 512, "parallel": 2, "ttl_s": 60, "pin": True, "backend": "fake"}
        answer = await api.post("models/load", model="m", **wish)
        status = answer.json()
        assert answer.status_code == 200
        assert (status["id"], status["state"], status["memory_bytes"]) == ("m", "ready", 700)
        assert (status["context_length"], status["parallel"]) == (512, 2)
        assert (status["ttl_s"], status["pinned"]) == (60, True)
        assert 0 < status["expires_in_s"] <= 60
        assert api.audit() == [("load", "m", "ok")]


async def test_identical_loads_are_one_load(serve):
    async with serve({"m": FakeModel(load_s=0.05)}) as api:
        calls = [api.post("models/load", model="m", ttl_s=60) for _ in range(20)]
        answers = await asyncio.gather(*calls, api.post("models/load", model="m", ttl_s=60))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["pid"] for answer in answers}) == 1
        assert len(api.stage.seen(ModelLoaded)) == 1


async def test_a_load_that_nobody_waits_for_is_only_begun(serve):
    async with serve({"m": FakeModel(load_s=1.0)}) as api:
        answer = await api.post("models/load", model="m", wait=False)
        assert (answer.status_code, answer.json()) == (202, {"model": "m", "state": "loading"})
        assert not api.stage.seen(ModelLoaded)
        await api.until(lambda: api.stage.seen(ModelLoaded))


async def test_a_load_that_nobody_waits_for_and_fails_is_told_as_an_event(serve):
    async with serve({"m": FakeModel(load_error="no such tensor")}) as api:
        answer = await api.post("models/load", model="m", wait=False)
        assert answer.status_code == 202
        await api.until(lambda: api.stage.seen(LoadFailed))
        assert "no such tensor" in api.stage.seen(LoadFailed)[0].message


@pytest.mark.parametrize("wait", [True, False])
async def test_what_is_refused_for_now_is_refused_at_once(serve, wait):
    async with serve({"m": FakeModel(poison="boom"), "n": HALF}) as api:
        for _ in range(-(-MAX_IN_A_ROW // 2)):  # each costs two crashes
            with pytest.raises(EngineCrashedError):
                await api.answer("m", "boom")
        before = len(api.stage.seen(LoadStarted))
        cooling = await api.post("models/load", model="m", wait=wait)
        api.stage.kernel.begin_drain()
        stopping = await api.post("models/load", model="n", wait=wait)
        for answer, why in ((cooling, "crashed repeatedly"), (stopping, "is stopping")):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (503, "unavailable")
            assert why in error["message"]
        assert int(cooling.headers["retry-after"]) > 0
        assert len(api.stage.seen(LoadStarted)) == before
        assert [outcome for *_, outcome in api.audit()] == ["unavailable"] * 2


async def test_a_time_to_live_ends_a_model_and_a_pin_keeps_it(serve):
    async with serve({"a": MOST, "b": MOST}, config=BUDGET) as api:
        house = asyncio.create_task(api.stage.assembly.lifecycle.run_maintenance())
        await api.post("models/load", model="a", ttl_s=0.1)
        await api.until(lambda: api.stage.seen(ModelUnloaded))
        assert api.stage.seen(ModelUnloaded)[0].reason == "idle"
        house.cancel()
        await api.post("models/load", model="a", pin=True)
        refused = await api.post("models/load", model="b")
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            422,
            "insufficient_memory",
        )
        assert "pinned: a" in refused.json()["error"]["message"]


@pytest.mark.parametrize("wait", [True, False])
async def test_what_does_not_fit_is_refused_with_the_figures(serve, wait):
    async with serve({"giant": GIANT}, config=BUDGET) as api:
        answer = await api.post("models/load", model="giant", wait=wait)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (422, "insufficient_memory")
        assert "needed" in error["message"]
        assert api.audit() == [("load", "giant", "insufficient_memory")]


async def test_what_cannot_be_loaded_is_said_as_it_is(serve, tmp_path):
    model_file(tmp_path, "broken").write_text("{")
    async with serve({"m": FakeModel(load_error="no such tensor")}) as api:
        for model, code in (("none", 404), ("broken", 422), ("m", 422)):
            answer = await api.post("models/load", model=model)
            assert answer.status_code == code, model
            assert str(tmp_path) not in answer.text


@pytest.mark.parametrize("path", ["models/load", "models/estimate"])
async def test_an_unknown_backend_is_named_with_those_there_are(serve, path):
    async with serve({"m": HALF}) as api:
        answer = await api.post(path, model="m", backend="none")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (404, "not_found", "backend")
        assert error["message"] == 'Backend "none" was not found. Backends here: fake.'
        missing = (await api.post(path, model="none", backend="fake")).json()["error"]
        assert missing["param"] == "model"
        assert missing["message"] == 'Model "none" was not found. Models for fake: m.'


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": 1}, "model"),
        ({"model": "m", "contextlength": 1}, "contextlength"),
        ({"model": "m", "context_length": 1}, "context_length"),
        ({"model": "m", "parallel": 1000}, "parallel"),
        ({"model": "m", "ttl_s": 0}, "ttl_s"),
        ({"model": "m", "pin": "yes"}, "pin"),
    ],
)
async def test_a_wrong_field_is_refused_by_name(serve, body, param):
    async with serve({"m": HALF}) as api:
        answer = await api.post("models/load", **body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert not api.stage.seen(LoadStarted)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 50_000])
async def test_what_is_no_body_is_refused(serve, data):
    async with serve({}) as api:
        answer = await api.http.post("/admin/models/load", content=data)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


async def test_a_body_that_is_too_large_is_refused(serve):
    async with serve({}) as api:
        answer = await api.post("models/load", model="m" * 70_000)
        assert answer.status_code == 413


# --- unloading and deleting ----------------------------------------------------------------------


async def test_an_unload_is_done_when_it_answers_and_does_no_harm_again(serve):
    async with serve({"m": HALF}) as api:
        await api.post("models/load", model="m")
        for _ in range(2):
            answer = await api.post("models/unload", model="m")
            assert (answer.status_code, answer.json()) == (
                200,
                {"model": "m", "state": "unloaded"},
            )
        assert [event.reason for event in api.stage.seen(ModelUnloaded)] == ["asked"]
        assert (await api.get("models/m")).json()["status"]["state"] == "absent"
        assert (await api.post("models/unload", model="none")).status_code == 404


async def test_a_model_is_deleted_from_disk(serve, tmp_path):
    async with serve({"m": HALF, "n": HALF}) as api:
        answer = await api.delete("models/m")
        assert answer.status_code == 200
        assert answer.json() == {"model": "m", "state": "deleted", "left": []}
        assert not model_file(tmp_path).exists()
        assert model_file(tmp_path, "n").exists()
        assert (await api.delete("models/m")).status_code == 404
        assert api.audit() == [("delete", "m", "ok"), ("delete", "m", "model_not_found")]


@pytest.mark.parametrize("wait", [True, False])
async def test_a_model_that_is_loaded_or_loading_is_not_deleted(serve, tmp_path, wait):
    async with serve({"m": FakeModel(load_s=0.0 if wait else 5.0)}) as api:
        await api.post("models/load", model="m", wait=wait)
        answer = await api.delete("models/m")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        assert model_file(tmp_path).exists()
        await api.post("models/unload", model="m")
        assert (await api.delete("models/m")).status_code == 200


# --- estimates -----------------------------------------------------------------------------------


async def test_an_estimate_agrees_with_what_the_load_does(serve):
    async with serve({"a": HALF, "b": MOST, "c": GIANT}, config=BUDGET) as api:
        a = (await api.post("models/estimate", model="a", context_length=256, parallel=3)).json()
        assert (a["fits"], a["unloads"], a["needed_bytes"]) == (True, [], 700)
        loaded = (await api.post("models/load", model="a", context_length=256, parallel=3)).json()
        assert loaded["memory_bytes"] == a["needed_bytes"]
        assert loaded["context_length"] == a["options"]["context_length"] == 256
        assert loaded["parallel"] == a["options"]["parallel"] == 3
        b = (await api.post("models/estimate", model="b")).json()
        assert (b["fits"], b["unloads"], b["available_bytes"]) == (True, ["a"], 800)
        await api.post("models/load", model="b")
        assert [event.model for event in api.stage.seen(ModelUnloaded)] == ["a"]
        c = (await api.post("models/estimate", model="c")).json()
        assert not c["fits"]
        assert c["problem"] == (await api.post("models/load", model="c")).json()["error"]["message"]
        assert not [action for action, *_ in api.audit() if action == "estimate"]


async def test_an_estimate_of_nothing_is_refused(serve):
    async with serve({}) as api:
        assert (await api.post("models/estimate", model="none")).status_code == 404
        answer = await api.post("models/estimate", model="none", ttl_s=1)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "ttl_s")
