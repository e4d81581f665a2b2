"""Plugins that are broken in every way are a line in `lmx plugins`, and nothing else (fault 30)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from lmx_kernel import errors
from lmx_kernel.events import ModelUnloaded
from lmx_kernel.interfaces import HttpRequest, PluginState
from lmx_kernel.observe.bus import Bus
from lmx_kernel.observe.monitors import watch
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.plugins.manager import Plugins, RequiredPluginError
from lmx_kernel.plugins.registrations import registrations
from lmx_kernel.plugins.settings import PluginSettings

GOOD = """
from attrs import frozen
from lmx_kernel.hookspecs import hookimpl
from lmx_kernel.interfaces import SettingsSection

@frozen
class Section:
    x: int = 1

@hookimpl
def lmx_settings():
    return [SettingsSection("good", Section)]
"""
HEAD = "from lmx_kernel.hookspecs import hookimpl\n@hookimpl\n"
BAD = {
    "import_error": "import no_such_module_at_all",
    "raises": "raise RuntimeError('boom')",
    "exits": "import sys; sys.exit(3)",
    "syntax": "def f(:",
    "hangs": "import threading; threading.Event().wait()",
    "unknown_hook": HEAD + "def lmx_no_such_hook(): pass",
    "wrong_argument": HEAD + "def lmx_backends(settings, teapot): return []",
    "coroutine": HEAD + "async def lmx_backends(): return []",
    "hook_raises": HEAD + "def lmx_settings(): raise ValueError('bad hook')",
    "hook_exits": HEAD + "def lmx_settings(): raise SystemExit(1)",
    "hook_hangs": HEAD + "def lmx_settings():\n    import threading; threading.Event().wait()",
    "not_a_list": HEAD + "def lmx_settings(): return 5",
    "no_names": HEAD + "def lmx_settings(): return [object()]",
    "generator_dies": HEAD + "def lmx_settings():\n    yield 1 / 0",
    "clashes": GOOD,
}
REASONS = {
    "import_error": "no_such_module_at_all",
    "raises": "boom",
    "exits": "SystemExit: 3",
    "hangs": "no answer within",
    "unknown_hook": "lmx_no_such_hook",
    "wrong_argument": "teapot",
    "coroutine": "coroutine",
    "hook_hangs": "no answer within",
    "clashes": "good is offered by both",
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that makes plugin modules importable and returns their names."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"lmxtest_{name}.py").write_text(source)
            sys.modules.pop(f"lmxtest_{name}", None)
        return tuple(f"lmxtest_{name}" for name in sources)

    return write


def load(modules, **settings):
    return Plugins(PluginSettings(discover=False, modules=modules, timeout_s=2, **settings))


def test_fifteen_bad_plugins_leave_the_good_one_alone(install):
    names = install(a_good=GOOD, **BAD)
    plugins = load(names)
    assert [section.name for section in plugins.settings_sections()] == ["good"]
    plugins.backends(None)
    states = {status.name.removeprefix("lmxtest_"): status for status in plugins.statuses}
    assert states["a_good"].state is PluginState.ACTIVE
    assert states["a_good"].hooks == ("lmx_settings",)
    for name in BAD:
        assert states[name].state is PluginState.FAILED, name
        assert REASONS.get(name, "") in states[name].reason


def test_a_clash_names_both_distributions(install):
    plugins = load(install(one=GOOD, two=GOOD))
    plugins.settings_sections()
    [failed] = [status for status in plugins.statuses if status.state is PluginState.FAILED]
    assert "lmxtest_one" in failed.reason
    assert "lmxtest_two" in failed.reason


def test_a_disabled_plugin_is_not_imported():
    plugins = Plugins(PluginSettings(disabled=("openai_api",)))
    status = {status.name: status for status in plugins.statuses}["openai_api"]
    assert status.state is PluginState.DISABLED
    assert not status.hooks


def test_a_required_plugin_that_failed_stops_the_start_with_its_reason(install):
    names = install(raises=BAD["raises"])
    with pytest.raises(RequiredPluginError, match="boom"):
        load(names, required=names).check_required()
    with pytest.raises(RequiredPluginError, match="nowhere: not installed"):
        load((), required=("nowhere",)).check_required()


def test_a_package_with_damaged_entry_points_costs_no_plugin(tmp_path, monkeypatch, caplog):
    before = registrations()
    monkeypatch.syspath_prepend(tmp_path)
    for name, entries in {"no_equals": b"[lmx]\nbad\n", "no_text": b"[lmx]\n\xff = x\n"}.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_bytes(entries)
    statuses = {status.name: status.state for status in Plugins(PluginSettings()).statuses}
    assert statuses["openai_api"] is PluginState.ACTIVE
    assert registrations() == before
    for name in ("no_equals", "no_text"):  # each is named, once
        assert caplog.text.count(name) == 1


def test_the_command_lists_what_packages_register_beside_plugins(tmp_path):
    info = tmp_path / "some_arch-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-arch\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[lmx.mlx.architectures]\nsome_lm = x\n")
    env = {**os.environ, "LMX_HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "lmx_kernel", "plugins"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["lmx.mlx.architectures", "some_lm", "some-arch", "1.5"] in lines


def test_of_a_package_that_is_there_twice_the_first_counts(tmp_path, monkeypatch):
    for version in ("1.0", "2.0"):  # the last is put in front
        info = tmp_path / version / f"twice-{version}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: Twice\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
        (info / "entry_points.txt").write_text("[lmx.some]\none = x\n")
        monkeypatch.syspath_prepend(info.parent)
    [entry] = entry_points("lmx.some", "one")
    assert entry.dist.version == "2.0"


REQUEST = HttpRequest(method="GET", path="/", headers={}, client="127.0.0.1")


def test_an_authoriser_may_refuse_and_a_broken_one_refuses(install):
    refusing = "from lmx_kernel.errors import ForbiddenError\n" + HEAD
    refusing += "def lmx_authorize(request): return ForbiddenError(request.path)"
    broken = HEAD + "def lmx_authorize(request): return request.teapot"
    assert load(()).authorize(REQUEST) is None
    assert isinstance(load(install(refuse=refusing)).authorize(REQUEST), errors.ForbiddenError)
    assert isinstance(load(install(broken=broken)).authorize(REQUEST), errors.UnauthorizedError)


@pytest.mark.parametrize(
    "fault",
    [
        "raise RuntimeError('no database')",
        "import time; time.sleep(60)",
        "@hookimpl\ndef lmx_settings(): return 7",
    ],
)
def test_an_authoriser_that_is_installed_but_absent_refuses_everybody(install, fault):
    body = f"{HEAD}def lmx_authorize(request): return None\n{fault}"
    plugins = load(install(door=body))
    plugins.settings_sections()
    assert plugins.statuses[0].state is PluginState.FAILED
    assert isinstance(plugins.authorize(REQUEST), errors.UnauthorizedError)


def test_a_plugin_without_an_authoriser_that_fails_refuses_nobody(install):
    assert load(install(other="raise RuntimeError")).authorize(REQUEST) is None


class Reader:
    """An observer that can be waited for."""

    def __init__(self, last="last", fail=False):
        self.seen, self.last, self.fail, self.done = [], last, fail, threading.Event()

    def __call__(self, event):
        self.seen.append(event.model)
        if event.model == self.last:
            self.done.set()
        if self.fail:
            raise RuntimeError("boom")


def event(model):
    return ModelUnloaded(model=model, reason="asked")


def test_observers_hear_events_in_order_and_a_broken_one_is_muted():
    good, bad = Reader(), Reader(last="c", fail=True)
    bus = Bus([("good", good), ("bad", bad)])
    for model in ("a", "b", "c", "d", "last"):
        bus.publish(event(model))
    assert good.done.wait(60)
    assert good.seen == ["a", "b", "c", "d", "last"]
    assert bad.done.wait(60)
    bus.publish(event("more"))
    assert bad.seen == ["a", "b", "c"]


def test_an_observer_that_hangs_stops_nobody():
    blocked, good = threading.Event(), Reader()
    bus = Bus([("bad", lambda _: blocked.wait()), ("good", good)])
    try:
        for last in ("half", "last"):  # together more than the bad one's queue holds
            good.last = last
            good.done.clear()
            for _ in range(1000):
                bus.publish(event("x"))
            bus.publish(event(last))
            assert good.done.wait(60)
    finally:
        blocked.set()


def test_a_listener_hears_only_while_it_listens():
    bus, seen = Bus([]), []
    with bus.listen(seen.append):
        bus.publish(event("a"))
    bus.publish(event("b"))
    assert [one.model for one in seen] == ["a"]


class Gauge:
    name, interval_s = "gauge", 0.0

    def __init__(self, fail):
        self.fail, self.samples = fail, 0

    def sample(self):
        self.samples += 1
        if self.fail:
            raise RuntimeError("boom")
        return {"x": 1.0}


async def test_a_monitor_s_figures_become_events_and_a_broken_one_is_muted():
    figures = asyncio.Queue()
    task = asyncio.create_task(watch(Gauge(fail=False), figures.put_nowait))
    assert (await figures.get()).values == {"x": 1.0}
    task.cancel()
    broken = Gauge(fail=True)
    await watch(broken, figures.put_nowait)
    assert broken.samples == 3
