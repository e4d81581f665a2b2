"""The config while the daemon runs, and the plugins."""

from __future__ import annotations

import pytest

from lmx_kernel.testing.fake_model import FakeModel


async def patch(api, body):
    return await api.http.patch("/admin/config", json=body)


async def test_the_values_in_force_are_shown_without_secrets(serve):
    config = '[server]\napi_key = "hush"\n[models]\nparallel = 3\n'
    async with serve({}, config=config) as api:
        answer = await api.get("config")
        view = answer.json()
        assert view["values"]["models"]["parallel"] == 3
        assert view["values"]["server"]["api_key"] == "***"
        assert "hush" not in answer.text
        assert "parallel" in view["live"]["models"]
        assert "server" not in view["live"]


async def test_a_change_is_in_force_at_once(serve):
    async with serve({"m": FakeModel()}) as api:
        answer = await patch(api, {"models": {"parallel": 2, "context_length": 64}})
        assert answer.status_code == 200
        assert answer.json()["values"]["models"]["parallel"] == 2
        loaded = (await api.post("models/load", model="m")).json()
        assert (loaded["parallel"], loaded["context_length"]) == (2, 64)
        assert api.audit()[0] == ("configure", "models.parallel models.context_length", "ok")


@pytest.mark.parametrize(
    "body",
    [
        {"models": {"parallel": 2, "nonsense": 1}},
        {"models": {"parallel": 2}, "nonsense": {}},
        {"models": {"parallel": 2}, "queue": {"max_waiting": "many"}},
        {"models": {"parallel": 2}, "server": {"port": 1}},
        {"models": {"parallel": 0}},
        {"models": 1},
        [],
    ],
)
async def test_a_change_that_is_wrong_in_any_part_changes_nothing(serve, body):
    async with serve({}) as api:
        before = (await api.get("config")).json()
        answer = await patch(api, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert (await api.get("config")).json() == before


async def test_a_number_that_is_none_is_not_said_to_be_a_field(serve):
    async with serve({}) as api:
        body = b'{"models": {"ttl_s": 1e400}}'
        answer = await api.http.patch("/admin/config", content=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, None)
        assert error["message"] == "body: Number out of range"


async def test_the_file_is_read_again_and_what_needs_a_restart_is_named(serve, tmp_path):
    async with serve({}, config="[models]\nparallel = 3\n") as api:
        path = tmp_path / "config.toml"
        text = path.read_text()
        path.write_text(text.replace("parallel = 3", "parallel = 5\nrescan_s = 7"))
        view = (await api.post("config/reload")).json()
        assert view["values"]["models"]["parallel"] == 5
        assert view["needs_restart"] == ["models.rescan_s"]
        path.write_text(text.replace("parallel = 3", "parallel = -1"))
        refused = await api.post("config/reload")
        assert refused.status_code == 400
        assert "parallel" in refused.json()["error"]["message"]
        assert str(tmp_path) not in refused.text
        assert (await api.get("config")).json()["values"]["models"]["parallel"] == 5
        assert [outcome for *_, outcome in api.audit()] == ["ok", "invalid_request"]


# --- plugins -------------------------------------------------------------------------------------


async def test_the_plugins_are_listed_with_what_is_wrong_with_one(serve_daemon, tmp_path):
    async with serve_daemon({}) as daemon:
        plugins = (await daemon.http.get("/admin/plugins")).json()["plugins"]
        states = {one["name"]: one["state"] for one in plugins}
        assert states["lmx_admin_api.plugin"] == states["admin_fake_kinds"] == "active"
        assert (await daemon.http.post("/admin/plugins/rescan")).json() == {"plugins": []}


async def test_a_plugin_is_disabled_and_enabled_where_that_is_safe(serve_daemon):
    async with serve_daemon({"m": FakeModel()}) as daemon:
        chat = "/v1/models"
        switch = "/admin/plugins/lmx_openai_api.plugin"
        assert (await daemon.http.get(chat)).status_code == 200
        answer = await daemon.http.post(f"{switch}/disable")
        assert (answer.status_code, answer.json()["state"]) == (200, "disabled")
        assert (await daemon.http.get(chat)).status_code == 404
        answer = await daemon.http.post(f"{switch}/enable")
        assert (answer.status_code, answer.json()["state"]) == (200, "active")
        assert (await daemon.http.get(chat)).status_code == 200


async def test_a_disabled_plugin_starts_no_jobs(serve_daemon):
    async with serve_daemon({}) as daemon:
        wish = {"repo": "acme/x"}
        assert (await daemon.http.post("/admin/downloads", json=wish)).status_code == 202
        await daemon.http.post("/admin/plugins/admin_fake_kinds/disable")
        answer = await daemon.http.post("/admin/downloads", json=wish)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert (await daemon.job())["state"] == "running"
        await daemon.http.post("/admin/plugins/admin_fake_kinds/enable")
        assert (await daemon.http.post("/admin/downloads", json=wish)).status_code == 202


async def test_a_plugin_in_use_stays(serve_daemon):
    async with serve_daemon({"m": FakeModel()}) as daemon:
        await daemon.http.post("/admin/models/load", json={"model": "m"})
        for name in ("lmx_kernel.testing.fake", "admin_api"):
            answer = await daemon.http.post(f"/admin/plugins/{name}/disable")
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        for action in ("enable", "disable"):
            answer = await daemon.http.post(f"/admin/plugins/none/{action}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
