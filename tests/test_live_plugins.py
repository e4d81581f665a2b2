"""Plugins that come and go while the daemon serves, and a config that is read again."""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points

import pytest

from lmx_kernel.assembly import assemble
from lmx_kernel.boot import boot
from lmx_kernel.discovery import PluginState
from lmx_kernel.errors import ConflictError, InvalidRequestError, NotFoundError
from lmx_kernel.hookspecs import GROUP
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.testing.script import Script
from lmx_kernel.testing.stage import ask, staged_kernel
from lmx_kernel.types import LoadWish

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


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of installed packages, and a function that installs one there."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def install(name, source=LISTENER):
        (folder / f"lmx_{name}.py").write_text(source.replace("{name}", name))
        info = folder / f"lmx_plugin_{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(METADATA.format(name=name))
        (info / "entry_points.txt").write_text(ENTRY.format(name=name))

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
    async with staged_kernel(tmp_path, {"m": Script()}) as stage:
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
    async with staged_kernel(tmp_path, {"m": Script()}) as stage:
        kernel, file = stage.kernel, tmp_path / "config.toml"
        before = file.read_text()
        file.write_text(before + "\n[models]\nparallel = 3\n[server]\nport = 4321\n")
        assert await kernel.reload_config() == ["server.port"]
        assert kernel.settings(ModelSettings).parallel == 3
        await kernel.load("m", LoadWish())
        assert kernel.status().models[0].parallel == 3
        file.write_text(before + "\n[models]\nparallel = 0\nparalel = 1\n")
        with pytest.raises(InvalidRequestError, match="models.paralel") as caught:
            await kernel.reload_config()
        assert "models.parallel" in caught.value.message
        assert str(tmp_path) not in caught.value.message
        assert kernel.settings(ModelSettings).parallel == 3
