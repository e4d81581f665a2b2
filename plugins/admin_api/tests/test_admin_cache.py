"""What is kept on disk of computed prompts: shown and deleted."""

from __future__ import annotations

from lmx_kernel.testing.fake_model import FakeModel

SCRIPT = FakeModel(shares_prefixes=True, portable=True)
LONG = "word " * 100


async def fill(api, *models):
    for model in models:
        await api.answer(model, LONG)
        await api.stage.kernel.unload(model)


async def test_it_is_shown_by_model_and_deleted_for_one_or_all(serve):
    async with serve({"one": SCRIPT, "two": SCRIPT, "three": FakeModel()}) as api:
        assert (await api.get("cache")).json() == {"size_bytes": 0, "models": []}
        await fill(api, "one", "two", "three")
        view = (await api.get("cache")).json()
        assert [model["model"] for model in view["models"]] == ["one", "two"]
        assert view["size_bytes"] == sum(model["size_bytes"] for model in view["models"]) > 0
        assert all(model["entries"] >= 4 for model in view["models"])
        await api.answer("two", LONG)
        figures = (await api.get("cache")).json()["models"][1]["figures"]
        assert figures["hits_disk"] == 1
        assert figures["tokens_disk"] >= 256
        assert (await api.delete("cache/one")).json()["freed_bytes"] > 0
        assert [one["model"] for one in (await api.get("cache")).json()["models"]] == ["two"]
        missing = await api.delete("cache/none")
        assert missing.status_code == 404
        assert "none" in missing.json()["error"]["message"]
        await api.delete("cache")
        assert (await api.get("cache")).json()["size_bytes"] == 0
        assert api.audit() == [
            ("clear_cache", "one", "ok"),
            ("clear_cache", "none", "model_not_found"),
            ("clear_cache", "*", "ok"),
        ]


async def test_the_command_shows_and_deletes_it(serve_daemon):
    async with serve_daemon({"m": SCRIPT}) as daemon:
        assert (await daemon.lmx("cache")).out == "Nothing is kept.\n"
        assert (await daemon.lmx("cache", "clear")).out.endswith("deleted.\n")
        missing = await daemon.lmx("cache", "clear", "none")
        assert missing.status == 1
        assert missing.err.startswith('Model "none" was not found.')
