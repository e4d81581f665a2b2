"""Plugins that come and go while the daemon serves, and a config that is read again."""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points

import httpx2 as httpx
import pytest

from lmx_kernel.errors import ConflictError, InvalidRequestError, NotFoundError
from lmx_kernel.hookspecs import GROUP
from lmx_kernel.interfaces import PluginState
from lmx_kernel.kernel.assembly import assemble
from lmx_kernel.kernel.boot import boot
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_daemon, running_kernel, write_fake_models
from lmx_kernel.types import LoadOverrides

METADATA = "Metadata-Version: 2.1\nName: lmx-plugin-{name}\nVersion: 1.0\n"
ENTRY = "[lmx]\n{name} = lmx_{name}\n"
LISTENER = """
from attrs import frozen
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import SettingsSection

heard = []

@frozen
class S:
    loud: bool = True

@hookimpl
def lmx_settings():
    return [SettingsSection("{name}", S)]

@hookimpl
def lmx_event(event):
    heard.append(event)
"""


SURFACE = """
from lmx_kernel.hookspecs import hookimpl


class Late:
    name, prefix, scope = "late", "/late", ""

    def routes(self):
        return [("/late", self)]

    def operations(self):
        return []

    def render_error(self, error):
        return {"late": error.message}

    def example(self, url, model):
        return ""

    async def on_get(self, req, resp):
        resp.media = {"at": "last"}


@hookimpl
def lmx_api_surfaces():
    return [Late()]
"""


def put(folder, name, source):
    """Install a plugin of one module, as pip would."""
    (folder / f"lmx_{name}.py").write_text(source.replace("{name}", name))
    info = folder / f"lmx_plugin_{name}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(METADATA.format(name=name))
    (info / "entry_points.txt").write_text(ENTRY.format(name=name))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of installed packages, and a function that installs one there."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def install(name, source=LISTENER):
        put(folder, name, source)

    yield install
    for name in [name for name in sys.modules if name.startswith("lmx_late")]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


@pytest.fixture
async def kernel(tmp_path):
    """A kernel that discovers what is installed, with no bundled plugin."""
    bundled = [entry.name for entry in entry_points(group=GROUP)]
    config = tmp_path / "config.toml"
    config.write_text(f"[plugins]\ndisabled = {json.dumps(bundled)}\n")
    assembly = assemble(boot(config))
    yield assembly.kernel
    await assembly.lifecycle.close(ConflictError("the test is over"))


async def test_a_plugin_is_used_as_soon_as_it_is_installed(kernel, shelf):
    assert await kernel.rescan_plugins() == []
    shelf("late")
    [status] = await kernel.rescan_plugins()
    assert (status.name, status.state, status.version) == ("late", PluginState.ACTIVE, "1.0")
    assert kernel.config()["late"] == {"loud": True}
    assert await kernel.rescan_plugins() == []


async def test_a_broken_plugin_is_tried_again_once_it_is_mended(kernel, shelf):
    shelf("late", "raise RuntimeError('not yet')")
    assert await kernel.rescan_plugins() == []
    [status] = [status for status in kernel.plugins() if status.name == "late"]
    assert (status.state, status.reason) == (PluginState.FAILED, "RuntimeError: not yet")
    shelf("late", LISTENER + "\nmended = True\n")
    assert [status.name for status in await kernel.rescan_plugins()] == ["late"]


async def test_a_plugin_is_disabled_and_enabled(kernel, shelf):
    shelf("late")
    await kernel.rescan_plugins()
    await kernel.disable_plugin("late")
    [status] = [status for status in kernel.plugins() if status.name == "late"]
    assert status.state is PluginState.DISABLED
    await kernel.enable_plugin("late")
    [status] = [status for status in kernel.plugins() if status.name == "late"]
    assert status.state is PluginState.ACTIVE
    with pytest.raises(NotFoundError, match="no plugin is called nobody"):
        await kernel.disable_plugin("nobody")


async def test_what_runs_a_loaded_model_or_is_required_stays(tmp_path):
    fake = "lmx_kernel.testing.fake"
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        with await stage.kernel.generate(ask("m", max_tokens=1)) as answer:
            async for _ in answer:
                pass
        with pytest.raises(ConflictError, match="runs m; unload it first"):
            await stage.kernel.disable_plugin(fake)
        await stage.kernel.unload("m")
        await stage.kernel.disable_plugin(fake)
        assert stage.kernel.models() == []
        await stage.kernel.enable_plugin(fake)
        assert [card.id for card in stage.kernel.models()] == ["m"]


async def test_a_reloaded_config_is_in_force_where_it_may_be(tmp_path):
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        kernel, file = stage.kernel, tmp_path / "config.toml"
        before = file.read_text()
        file.write_text(before + "\n[models]\nparallel = 3\n[server]\nport = 4321\n")
        assert await kernel.reload_config() == ["server.port"]
        assert kernel.settings(ModelSettings).parallel == 3
        await kernel.load("m", LoadOverrides())
        assert kernel.status().models[0].parallel == 3
        file.write_text(before + "\n[models]\nparallel = 0\nparalel = 1\n")
        with pytest.raises(InvalidRequestError, match=r"models\.paralel") as caught:
            await kernel.reload_config()
        assert "models.parallel" in caught.value.message
        assert str(tmp_path) not in caught.value.message
        assert kernel.settings(ModelSettings).parallel == 3


async def test_a_dialect_is_served_as_soon_as_it_is_installed(tmp_path):
    """Without a restart, and beside a stream that is not disturbed."""
    packages = tmp_path / "packages"
    packages.mkdir()
    write_fake_models(tmp_path, {"m": FakeModel(tokens_per_s=100)})
    config = tmp_path / "config.toml"
    config.write_text(
        f'[plugins]\nmodules = ["lmx_kernel.testing.fake"]\n[fake]\nfolder = "{tmp_path}"\n'
    )
    async with (
        running_daemon(config, PYTHONPATH=str(packages)) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        body = {"model": "m", "prompt": "x", "max_tokens": 100, "stream": True}
        async with http.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            assert (await http.get("/late")).status_code == 404
            put(packages, "late", SURFACE)
            await http.post("/admin/plugins/rescan")
            assert (await http.get("/late")).json() == {"at": "last"}
            assert (await http.put("/late")).json()["late"]
            assert (await http.post("/admin/plugins/late/disable")).status_code == 200
            assert (await http.get("/late")).status_code == 404
            assert [line async for line in lines if line][-1] == "data: [DONE]"
        assert daemon.process.returncode is None
