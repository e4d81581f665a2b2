"""``/admin/models/{id}/settings`` and ``lmx show``."""

from __future__ import annotations

import json

import pytest

from lmx_kernel.testing.fake_model import FakeModel

MAKER = {"m": FakeModel(sampling={"temperature": 0.6})}


async def test_settings_are_shown_with_who_has_set_them_changed_and_taken_back(serve):
    config = '[[model]]\nmatch = "m"\nsampling.top_k = 9\n'
    async with serve(MAKER, config=config) as api:
        found = (await api.get("models/m/settings")).json()
        assert found["model"] == "m"
        settings = found["settings"]
        assert settings["sampling.temperature"] == {"value": 0.6, "source": "model's file"}
        assert settings["sampling.top_k"] == {"value": 9, "source": "config table 1"}
        assert settings["sampling.min_p"] == {"value": 0.0, "source": "model's file"}
        assert settings["max_tokens"] == {"value": None, "source": "LMX"}
        body = {"max_tokens": 5, "sampling": {"top_k": 3}}
        changed = await api.http.patch("/admin/models/m/settings", json=body)
        assert changed.json()["saved"] == body
        settings = (await api.get("models/m/settings")).json()["settings"]
        assert settings["sampling.top_k"] == {"value": 3, "source": "api"}
        one_back = await api.http.patch("/admin/models/m/settings", json={"max_tokens": None})
        assert one_back.json()["saved"] == {"sampling": {"top_k": 3}}
        reset = await api.delete("models/m/settings")
        assert reset.json()["saved"] == {}
        assert reset.json()["settings"] == found["settings"]
        assert [line[:2] for line in api.audit()] == [
            ("set", "m max_tokens sampling"),
            ("set", "m max_tokens"),
            ("reset", "m"),
        ]


async def test_a_change_of_a_loaded_model_says_what_waits_for_its_next_load(serve):
    async with serve({"m": FakeModel()}) as api:
        await api.answer("m")
        body = {"context_length": 1024, "ttl_s": 5, "sampling": {"top_k": 3}}
        changed = (await api.http.patch("/admin/models/m/settings", json=body)).json()
        assert set(changed["needs_reload"]) == {"cache_tokens", "context_length"}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"max_tokens": "x"}, 400, "max_tokens: expected an integer, found 'x'"),
        ({"sampling": {"top_q": 1}}, 400, "sampling.top_q: unknown key; did you mean 'top_p'?"),
        ({"nonsense": 1}, 400, "nonsense: unknown key"),
        ([1], 400, ""),
    ],
)
async def test_a_wrong_change_is_refused_by_name(serve, body, status, text):
    async with serve(MAKER) as api:
        answer = await api.http.patch("/admin/models/m/settings", json=body)
        assert answer.status_code == status
        assert text in answer.json()["error"]["message"]


async def test_a_model_that_is_not_there_and_a_path_that_takes_no_change(serve):
    async with serve(MAKER) as api:
        for call in (api.http.get, api.http.delete):
            assert (await call("/admin/models/nope/settings")).status_code == 404
        assert (await api.http.patch("/admin/models/nope/settings", json={})).status_code == 404
        answer = await api.http.patch("/admin/models/m", json={})
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, DELETE"


async def test_the_command_shows_settings_and_they_survive_a_restart(serve_daemon, tmp_path):
    async with serve_daemon(MAKER) as held:
        body = {"profiles": {"fast": {"max_tokens": 3}}}
        answer = await held.http.patch("/admin/models/m/settings", json=body)
        assert answer.status_code == 200
        loaded = await held.lmx("load", "m", "--parallel", "3")
        assert loaded.status == 0
    async with serve_daemon(MAKER) as held:
        shown = await held.lmx("show", "m:fast")
        assert shown.status == 0
        lines = [line.split(maxsplit=2) for line in shown.out.splitlines()]
        assert ["max_tokens", "3", "profile fast"] in [list(map(str.strip, one)) for one in lines]
        assert ["parallel", "3", "load request"] in [list(map(str.strip, one)) for one in lines]
        listed = (await held.http.get("/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == ["m", "m:fast"]
        as_json = await held.lmx("show", "m", "--json")
        temperature = json.loads(as_json.out)["settings"]["sampling.temperature"]
        assert temperature == {"value": 0.6, "source": "model's file"}
        wrong = await held.lmx("show", "nope")
        assert wrong.status != 0
        assert "nope" in wrong.err
