"""The boot guard: after three bad starts a safe one (fault 35), and no second try of a load that
went with the machine (fault 3)."""

from __future__ import annotations

import os
import tomllib

import httpx2 as httpx
import pytest

from lmx_kernel.config import find_home
from lmx_kernel.events import LoadFailed, LoadStarted, ModelLoaded, ModelUnloaded, WorkerCrashed
from lmx_kernel.interfaces import PluginState
from lmx_kernel.kernel.boot_verdict import NORMAL, BootVerdict
from lmx_kernel.kernel.safe_mode import FILE, CrashLoopGuard
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.settings import PluginSettings
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

ENDED = [
    ModelLoaded(model="m", pid=1, load_s=1, memory_bytes=1),
    LoadFailed(model="m", code="x", message="x"),
    ModelUnloaded(model="m", reason="asked"),
]


class Clock:
    def __init__(self, now=1e9):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def start(tmp_path, clock):
    """Return a function that starts a guard, as a daemon that is gone did before it."""
    guards = []

    def begin():
        crash(guards)
        guards.append(CrashLoopGuard(tmp_path, clock))
        return guards[-1], guards[-1].begin()

    yield begin
    crash(guards)


def crash(guards):
    """Leave a guard as the death of its process would."""
    for guard in guards:
        guard._writer.shutdown()
        guard._lock.release()
    guards.clear()


def test_the_fourth_start_after_three_unclean_ones_is_safe(start, clock):
    for n in range(6):
        assert start()[1].safe_mode == (n >= 3)
        clock.now += 10


def test_a_clean_stop_is_a_new_beginning(start):
    for _ in range(3):
        start()
    guard, verdict = start()
    guard.on_event(LoadStarted(model="m"))
    guard.end()
    assert verdict.safe_mode
    for _ in range(3):
        assert start()[1] == NORMAL


def test_bad_starts_are_forgiven_with_time(start, clock):
    for _ in range(4):
        assert not start()[1].safe_mode
        clock.now += 101


@pytest.mark.parametrize("jump_s", [3600, -3600, 1e9, -1e9])
def test_a_clock_that_is_set_makes_no_lasting_safe_mode(start, clock, jump_s):
    for _ in range(3):
        start()
    clock.now += jump_s
    for _ in range(3):
        assert not start()[1].safe_mode
    assert start()[1].safe_mode


def test_a_clock_that_is_corrected_a_little_hides_no_crash_loop(start, clock):
    for _ in range(3):
        start()
        clock.now -= 2
    assert start()[1].safe_mode


def test_a_start_that_was_refused_never_was(start):
    for _ in range(2):
        start()
    for _ in range(3):
        guard, verdict = start()
        assert not verdict.safe_mode
        guard.withdraw()
    start()
    assert start()[1].safe_mode


def test_a_model_whose_load_did_not_end_is_a_suspect_until_it_does(start):
    guard, _ = start()
    guard.on_event(LoadStarted(model="m"))
    for _ in range(2):
        guard, verdict = start()
        assert verdict.suspects == {"m"}
    guard.on_event(LoadStarted(model="m"))
    guard.on_event(ENDED[0])
    assert not start()[1].suspects


@pytest.mark.parametrize("ended", ENDED)
def test_a_load_that_ended_is_none(start, ended):
    guard, _ = start()
    guard.on_event(LoadStarted(model="m"))
    guard.on_event(LoadStarted(model="other"))
    guard.on_event(ended)
    guard.on_event(WorkerCrashed(model="m", reason="x", resumed=0, failed=0))
    assert start()[1].suspects == {"other"}


DAMAGE = [
    b"",
    b"\xff\x00",
    b"null",
    b"[]",
    b'{"starts": 5}',
    b'{"starts": [1e999]}',
    b'{"starts": ["x"], "loading": {}}',
    b'{"starts": [1, 2',
    b'{"x":' + b"[" * 100_000,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_the_file_is_as_no_file(start, tmp_path, damage):
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_bytes(damage)
    for n in range(4):
        assert start()[1] == BootVerdict(safe_mode=n == 3)


def test_a_home_that_cannot_be_written_guards_nothing(start, tmp_path):
    (tmp_path / FILE.parent).write_text("in the way")
    for _ in range(5):
        guard, verdict = start()
        guard.on_event(LoadStarted(model="m"))
        assert verdict == NORMAL


def test_a_file_that_cannot_be_written_is_no_reason_not_to_start(start, tmp_path):
    (tmp_path / FILE).mkdir(parents=True)
    for _ in range(5):
        guard, verdict = start()
        assert verdict == NORMAL
    guard.end()


def test_a_second_daemon_of_a_home_leaves_the_record_of_the_first_alone(start, tmp_path, clock):
    first, _ = start()
    first.on_event(LoadStarted(model="m"))
    for _ in range(4):
        second = CrashLoopGuard(tmp_path, clock)
        assert second.begin() == NORMAL
        second.end()
    assert start()[1].suspects == {"m"}


# --- safe mode -----------------------------------------------------------------------------------


def test_the_extra_names_every_plugin_of_this_repository(request):
    root = request.config.rootpath
    own = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    found = {
        tomllib.loads(path.read_text())["project"]["name"]
        for path in root.glob("plugins/*/pyproject.toml")
    }
    assert set(own["optional-dependencies"]["all"]) == found


def test_safe_mode_loads_our_plugins_and_what_the_config_requires(third_party, monkeypatch):
    monkeypatch.syspath_prepend(third_party)
    settings = PluginSettings(modules=("third_party",))
    states = states_of(Plugins(settings, safe_mode=True))
    assert states["openai_api"] is PluginState.ACTIVE
    assert states["third"] is states["third_party"] is PluginState.DISABLED
    settings = PluginSettings(required=("third",))
    assert states_of(Plugins(settings, safe_mode=True))["third"] is PluginState.ACTIVE


def test_safe_mode_loads_our_plugins_by_way_of_their_modules_too(third_party, monkeypatch):
    monkeypatch.syspath_prepend(third_party)
    modules = ("lmx_schedule.plugin", "third_party")
    states = states_of(Plugins(PluginSettings(discover=False, modules=modules), safe_mode=True))
    assert states["lmx_schedule.plugin"] is PluginState.ACTIVE
    assert states["third_party"] is PluginState.DISABLED


def states_of(plugins):
    return {status.name: status.state for status in plugins.statuses}


THIRD_PARTY = """
from lmx_kernel.hookspecs import hookimpl

class Page:
    async def on_get(self, req, resp):
        resp.text = "here"

class Surface:
    name = prefix = "/third"

    def routes(self):
        yield "/third", Page()

    def operations(self):
        return []

    def render_error(self, error):
        return {}

    def example(self, url, model):
        return ""

@hookimpl
def lmx_api_surfaces(kernel):
    return [Surface()]
"""


@pytest.fixture
def third_party(tmp_path):
    """A folder with an installed plugin that is none of ours."""
    folder = tmp_path / "site"
    metadata = folder / "third_party-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "third_party.py").write_text(THIRD_PARTY)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[lmx]\nthird = third_party\n")
    return folder


async def test_a_daemon_that_was_killed_three_times_starts_safely(tmp_path, third_party):
    config = tmp_path / "config.toml"
    config.write_text(
        "[third]\nx = 1\n[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
    )
    third_party.joinpath("third_party.py").write_text(
        THIRD_PARTY
        + "from attrs import frozen\nfrom lmx_kernel.interfaces import SettingsSection\n"
        + "@frozen\nclass Third:\n    x: int = 0\n"
        + "@hookimpl\ndef lmx_settings():\n    return [SettingsSection('third', Third)]\n"
    )
    safe = []
    for n in range(5):
        async with (
            running_daemon(config, PYTHONPATH=str(third_party)) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
        ):
            assert (await http.get("/v1/models")).status_code == 200
            safe.append((await http.get("/third")).status_code == 404)
            assert safe[-1] == any("Safe mode" in line for line in daemon.announced)
            if n < 3:
                daemon.process.kill()
            else:
                assert await daemon.stop() == 0
    assert safe == [False, False, False, True, False]


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.full)])
async def test_what_was_loading_when_a_daemon_died_is_not_loaded_again_unasked(tmp_path, times):
    for n in range(times):
        folder = tmp_path / str(n)
        folder.mkdir()
        write_fake_models(folder, {"m": FakeModel(load_hang=True), "fine": FakeModel()})
        config = write_config(folder, config='[models]\nautoload = ["m", "fine"]\n')
        async with (
            running_daemon(config) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
        ):
            while not list(folder.glob("m*.tally")):  # its worker is at it, and hangs this once
                await http.get("/health")
            assert b'"m"' in (folder / FILE).read_bytes()
            daemon.process.kill()
        assert await autoloaded(config) == {"fine"}  # after the daemon that died
        assert await autoloaded(config) == {"m", "fine"}  # after one that stopped


async def autoloaded(config):
    """Return the models that a daemon loads by itself, the last of them `fine`."""
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        ready = set()
        while "fine" not in ready:
            models = (await http.get("/health/status")).json()["models"]
            ready = {model["id"] for model in models if model["state"] == "ready"}
        assert await daemon.stop() == 0
    return ready


def test_other_commands_are_no_starts(tmp_path, monkeypatch):
    from lmx_kernel.kernel.boot import boot

    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    boot()
    assert find_home(os.environ) == tmp_path
    assert not (tmp_path / FILE).exists()
