"""A plugin's whole life in a running daemon: installed, changed, upgraded, uninstalled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from broken_plugins import GOOD, module, surface

from lmx_kernel.errors import ConflictError, NotFoundError
from lmx_kernel.hookspecs import GROUP
from lmx_kernel.interfaces import PluginState
from lmx_kernel.kernel.assembly import assemble
from lmx_kernel.kernel.boot import boot
from lmx_kernel.plugins import registrations
from lmx_kernel.plugins.calls import Calls
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel

SAYS = "def example(self, url, model): return '{}'"
ROOT = Path(__file__).parents[2]
HEAVY = {"falcon", "jinja2", "mlx", "numpy", "prometheus_client", "uvloop", "yaml"}
AUTHORISER = "@hookimpl\ndef lmx_authorize(request): return None"


class Shelf:
    """A folder of installed packages of one module each."""

    def __init__(self, folder):
        self.folder = folder

    def put(self, name, source, version="1.0"):
        self.remove(name)
        (self.folder / f"shelf_{name}.py").write_text(module(name, source))
        info = self.folder / f"shelf_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: shelf-{name}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[lmx]\n{name} = shelf_{name}\n")
        (info / "RECORD").write_text(f"shelf_{name}.py,,\n")

    def remove(self, name):
        for path in self.folder.glob(f"shelf_{name}-*.dist-info"):
            shutil.rmtree(path)
        (self.folder / f"shelf_{name}.py").unlink(missing_ok=True)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # versions are written within a second
    yield Shelf(folder)
    for name in [name for name in sys.modules if name.startswith("shelf_")]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


@pytest.fixture
async def kernel(tmp_path):
    """A kernel that discovers what is installed, with no bundled plugin."""
    bundled = [entry.name for entry in entry_points(group=GROUP)]
    config = tmp_path / "config.toml"
    config.write_text(f"[plugins]\ndisabled = {json.dumps(bundled)}\n")
    booted = boot(config)
    assembly = assemble(booted)

    async def ask_for_surfaces():
        booted.plugins.api_surfaces(assembly.kernel)

    assembly.extensions.follow(ask_for_surfaces)
    assembly.kernel.said = lambda: [
        one.example("", "") for one in booted.plugins.api_surfaces(assembly.kernel)
    ]
    yield assembly.kernel
    await assembly.lifecycle.close(ConflictError("the test is over"))


def listed(kernel):
    return {one.name: one for one in kernel.plugins()}


async def test_an_upgrade_is_really_used_and_the_version_is_that_of_the_code(kernel, shelf):
    shelf.put("acme", surface(SAYS.format("one")))
    assert [one.version for one in await kernel.rescan_plugins()] == ["1.0"]
    shelf.put("acme", surface(SAYS.format("two")), "2.0")
    assert listed(kernel)["acme"].state is PluginState.OUTDATED
    assert (listed(kernel)["acme"].version, listed(kernel)["acme"].installed_version) == (
        "1.0",
        "2.0",
    )
    assert kernel.said() == ["one"]
    assert [one.version for one in await kernel.rescan_plugins()] == ["2.0"]
    assert listed(kernel)["acme"].state is PluginState.ACTIVE
    assert kernel.said() == ["two"]
    assert await kernel.rescan_plugins() == []


async def test_a_new_version_that_is_broken_says_so_and_is_mended_by_the_next(kernel, shelf):
    shelf.put("acme", GOOD)
    await kernel.rescan_plugins()
    shelf.put("acme", "raise RuntimeError('half done')", "2.0")
    assert await kernel.rescan_plugins() == []
    assert "half done" in listed(kernel)["acme"].reason
    assert kernel.said() == []
    shelf.put("acme", surface(SAYS.format("three")), "3.0")
    await kernel.rescan_plugins()
    assert kernel.said() == ["three"]


async def test_what_was_uninstalled_is_taken_out(kernel, shelf):
    shelf.put("acme", GOOD)
    await kernel.rescan_plugins()
    shelf.remove("acme")
    assert "uninstalled" in listed(kernel)["acme"].reason
    assert await kernel.rescan_plugins() == []
    assert "acme" not in listed(kernel)
    assert kernel.said() == []
    with pytest.raises(NotFoundError, match="no plugin is called acme"):
        await kernel.enable_plugin("acme")


async def test_an_edit_without_a_new_version_is_used_when_it_is_asked_for(kernel, shelf):
    shelf.put("acme", surface(SAYS.format("one")))
    await kernel.rescan_plugins()
    (shelf.folder / "shelf_acme.py").write_text(module("acme", surface(SAYS.format("edited"))))
    assert await kernel.rescan_plugins() == []
    await kernel.reload_plugin("acme")
    assert kernel.said() == ["edited"]


async def test_an_authoriser_runs_on_in_its_old_version_and_says_so(kernel, shelf):
    shelf.put("guard", AUTHORISER)
    await kernel.rescan_plugins()
    shelf.put("guard", AUTHORISER, "2.0")
    assert await kernel.rescan_plugins() == []
    guard = listed(kernel)["guard"]
    assert (guard.state, guard.version) == (PluginState.OUTDATED, "1.0")
    assert "2.0 is installed, 1.0 runs: until the restart" in guard.reason
    with pytest.raises(ConflictError, match=r"now; 2\.0 is installed, 1\.0 runs"):
        await kernel.reload_plugin("guard")
    shelf.remove("guard")
    await kernel.rescan_plugins()
    assert "it was uninstalled, 1.0 runs: until the restart" in listed(kernel)["guard"].reason


async def test_a_backend_that_runs_a_model_is_not_reloaded(tmp_path):
    fake = "lmx_kernel.testing.fake"
    async with running_kernel(tmp_path, {"m": FakeModel()}) as stage:
        with await stage.kernel.generate(ask("m", max_tokens=1)) as answer:
            async for _ in answer:
                pass
        with pytest.raises(ConflictError, match="runs m; unload it first"):
            await stage.kernel.reload_plugin(fake)
        await stage.kernel.unload("m")
        await stage.kernel.reload_plugin(fake)
        assert [card.id for card in stage.kernel.models()] == ["m"]


@pytest.mark.parametrize("order", [("older", "newer"), ("newer", "older")])
async def test_of_two_that_clash_the_older_is_kept_whatever_their_names(kernel, shelf, order):
    source = surface("pass").replace("Mine()", "Mine()") + "\nMine.name = 'x'"
    source = "NAME = 'same'\n" + source
    for age_s, name in zip((100, 0), order, strict=True):
        shelf.put(name, source)
        info = shelf.folder / f"shelf_{name}-1.0.dist-info"
        at = info.stat().st_mtime - age_s
        os.utime(info, (at, at))
    await kernel.rescan_plugins()
    kernel.said()
    states = {name: listed(kernel)[name].state for name in order}
    assert states == {order[0]: PluginState.ACTIVE, order[1]: PluginState.FAILED}
    assert f"shelf-{order[0]} 1.0" in listed(kernel)[order[1]].reason


async def test_two_packages_with_one_plugin_name_are_both_listed(kernel, shelf):
    shelf.put("acme", GOOD)
    shelf.put("twin", GOOD)
    info = shelf.folder / "shelf_twin-1.0.dist-info"
    (info / "entry_points.txt").write_text("[lmx]\nacme = shelf_twin\n")
    at = info.stat().st_mtime + 100
    os.utime(info, (at, at))
    await kernel.rescan_plugins()
    assert listed(kernel)["acme"].distribution == "shelf-acme"
    twin = listed(kernel)["acme of shelf-twin"]
    assert "its name is that of shelf-acme 1.0" in twin.reason


async def test_calls_are_counted_and_shown(kernel, shelf):
    shelf.put("acme", GOOD)
    await kernel.rescan_plugins()
    kernel.said()
    [times] = [one for one in listed(kernel)["acme"].times if one.hook == "lmx_api_surfaces"]
    assert (times.calls, times.failures) == (1, 0)
    assert "lmx_api_surfaces" in [one.hook for one in kernel.plugin_calls("acme")]
    with pytest.raises(NotFoundError):
        kernel.plugin_calls("nobody")


def test_a_slow_call_on_the_event_loop_is_named(monkeypatch):
    calls = Calls()
    monkeypatch.setattr("lmx_kernel.plugins.calls.SLOW_S", 0.0)
    with calls.watch("slow", "lmx_authorize", on_loop=True):
        pass
    state, reason = calls.trouble("slow")
    assert state is PluginState.DEGRADED
    assert "every request waited" in reason


# --- the command line ----------------------------------------------------------------------------

COMMAND = """
from cyclopts import App
made = App(name="mine")
made.default(lambda: print("by a plugin"))
@hookimpl
def lmx_commands(): return [made]
"""


@pytest.fixture
def lmx(tmp_path, shelf):
    """Return a function that runs `lmx` with a home of its own, and no daemon."""
    config = tmp_path / "config.toml"
    config.write_text("[server]\nport = 1\n[gone]\nx = 1\n")

    def run(*arguments, python=()):
        return subprocess.run(
            [sys.executable, *python, "-m", "lmx_kernel", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "LMX_HOME": str(tmp_path), "PYTHONPATH": str(shelf.folder)},
            check=False,
        )

    return run


def test_a_command_of_a_plugin_loads_that_plugin_alone(lmx, shelf, tmp_path):
    shelf.put("acme", COMMAND)
    shelf.put("loud", "print('loud is imported')")
    assert "by a plugin" in lmx("mine").stdout
    assert lmx("mine").stdout == "by a plugin\n"
    assert "loud" not in lmx("nonsense").stdout
    shelf.put("acme", COMMAND.replace("mine", "other"), "2.0")
    assert "by a plugin" in lmx("other").stdout


def test_a_command_that_asks_the_daemon_imports_no_plugin_and_no_kernel(lmx, shelf):
    shelf.put("loud", "print('loud is imported')")
    for words in (("ps",), ("plugin", "rescan"), ("plugin", "show", "x", "--help")):
        done = lmx(*words, python=("-X", "importtime"))
        assert "loud" not in done.stdout
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "lmx_kernel.cli.client" in imported
        assert not imported & {"lmx_kernel.kernel", "lmx_kernel.worker", "structlog", "pluggy"}


@pytest.mark.parametrize("words", ["ls", "doctor", "config check", "plugin list"])
def test_a_command_that_loads_all_plugins_imports_nothing_that_serves(lmx, words):
    done = lmx(*words.split(), python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"lmx_openai_api.settings", "lmx_mlx_backend.footprint"} < imported
    modules = {"lmx_kernel.kernel.assembly", "lmx_kernel.dialect", "lmx_kernel.worker"}
    for part in ("surface", "surfaces", "monitor", "conversion"):
        modules |= {f"{plugin.name}.{part}" for plugin in ROOT.glob("plugins/*/lmx_*")}
    assert not imported & (HEAVY | modules)


def test_commands_and_hooks_mean_the_same_entry_points():
    assert registrations.GROUP == GROUP


def test_a_section_of_no_plugin_is_a_warning_and_an_error_if_that_is_wanted(lmx):
    done = lmx("config", "check")
    assert done.returncode == 0
    assert "config.toml:3: gone: unknown section" in done.stderr
    strict = lmx("config", "check", "--strict")
    assert strict.returncode == 78
    assert "config.toml:3: gone: unknown section" in strict.stderr
