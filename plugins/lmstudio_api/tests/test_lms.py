"""``lms``: what scripts and agents call, on a daemon that it starts and stops itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from attrs import frozen
from lmx_lmstudio_api.lms import daemon, install
from lmx_lmstudio_api.lms.command import app

from lmx_kernel.cli.main import run
from lmx_kernel.daemon.run_file import read
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import write_config, write_fake_models

PLUGINS = ("lmx_lmstudio_api.plugin", "lmx_admin_api.plugin", "lmx_openai_api.plugin")
SCRIPTS = {
    "counter": FakeModel(answer_tokens=8),
    "vectors": FakeModel(embeds=True),
    "huge": FakeModel(memory_bytes=2**60),
}


@frozen
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """A home whose daemon, if a test started one, is stopped in the end."""
    folder = tmp_path_factory.mktemp("home")
    write_fake_models(folder, SCRIPTS)
    write_config(folder, PLUGINS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMX_HOME", str(folder))
        patch.delenv("LMX_URL", raising=False)
        patch.setenv("COLUMNS", "200")
        yield folder
        if (running := daemon.find_running()) is not None:
            daemon.stop_daemon(running)


@pytest.fixture
def lms(home, capfd) -> Callable[..., Outcome]:
    """Return a function that runs a command, in this process."""

    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(lambda: lambda: app(arguments))
        out, err = capfd.readouterr()
        return Outcome(ended.value.code or 0, out, err)

    return call


@pytest.fixture
def port(lms) -> int:
    """The port of the server, which is started if it does not run."""
    if daemon.find_running() is None:
        started = lms("server", "start", "--port", str(free_port()))
        assert started.status == 0, started.err
    return daemon.port_of(daemon.find_running())


def test_the_server_is_started_told_and_stopped(lms, home):
    if daemon.find_running() is not None:
        lms("server", "stop")
    assert lms("server", "status", "--json").json["running"] is False
    assert lms("server", "stop").status == 1
    assert {one["modelKey"] for one in lms("ls", "--json").json} == SCRIPTS.keys()
    refused = lms("ps", "--json")
    assert (refused.status, refused.out) == (1, "")
    assert "no daemon answers" in refused.err
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        failed = lms("server", "start", "--port", str(taken.getsockname()[1]))
    assert (failed.status, "is in use" in failed.err) == (1, True)

    port = free_port()
    started = lms("server", "start", "--port", str(port))
    assert (started.status, f"running on port {port}" in started.out) == (0, True), started.err
    assert read(home).pid != os.getpid()
    told = lms("server", "status", "--json", "--quiet")
    assert (told.status, told.json) == (0, {"running": True, "port": port})
    assert lms("server", "status").out == f"The server is running on port {port}.\n"
    assert f"Server: ON (port: {port})" in lms("status").out
    assert lms("server", "start").status == 0
    assert lms("server", "start", "--port", str(free_port())).status == 1
    stop = lms("server", "stop")
    assert (stop.status, stop.out) == (0, f"Stopped the server on port {port}.\n")
    assert read(home) is None
    assert "OFF" in lms("status").out


def test_models_are_listed_loaded_and_unloaded(lms, port):
    kinds = {one["modelKey"]: one["type"] for one in lms("ls", "--json").json}
    assert kinds == {"counter": "llm", "vectors": "embedding", "huge": "llm"}
    assert [one["modelKey"] for one in lms("ls", "--embedding", "--json").json] == ["vectors"]
    assert "counter" in lms("ls").out
    loaded = lms("load", "counter", "--yes", "--ttl", "900", "-c", "256", "--parallel", "2")
    assert loaded.status == 0, loaded.err
    assert 'use the identifier "counter"' in loaded.out
    (one,) = lms("ps", "--json").json
    told = {key: one[key] for key in ("identifier", "contextLength", "ttlMs", "parallel", "status")}
    assert told == {
        "identifier": "counter",
        "contextLength": 256,
        "ttlMs": 900_000,
        "parallel": 2,
        "status": "idle",
    }
    assert "counter" in lms("ps").out
    assert lms("unload", "vectors").status == 1
    assert lms("load", "vectors", "--quiet").out == ""
    assert lms("unload").status == 1  # which one?
    assert lms("unload", "--all").status == 0
    assert lms("ps", "--json").json == []


def test_what_cannot_be_done_is_a_line_and_a_status(lms, port):
    for arguments, said in [
        (("load", "nothing", "-y"), "nothing"),
        (("load", "huge"), "are needed"),
        (("load", "counter", "--identifier", "gpt-4"), "aliases"),
        (("unload", "counter", "--all"), "--all"),
        (("log", "stream", "--source", "model"), "--source model"),
        (("get", "acme/tiny", "--yes"), "download"),  # no plugin downloads here
    ]:
        failed = lms(*arguments)
        assert failed.status == 1, arguments
        assert said in failed.err
        assert len(failed.err.splitlines()) == 1
    estimate = lms("load", "huge", "--estimate-only")
    assert (estimate.status, "cannot be loaded now" in estimate.out) == (1, True)
    assert lms("load", "counter", "--estimate-only", "--gpu", "max").status == 0
    assert "there already" in lms("get", "counter", "--yes").out


def test_the_log_is_streamed_as_it_comes(lms, home, port):
    process = subprocess.Popen(
        [sys.executable, "-m", "lmx_lmstudio_api.lms", "log", "stream", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            line = json.loads(process.stdout.readline())  # of its own request
        finally:
            process.terminate()
    assert line["timestamp"] > 1_700_000_000_000
    assert line["data"]["type"] == "server.log"
    assert line["data"]["content"].startswith("request ")


def test_it_is_a_command_of_lmx_too():
    from lmx_lmstudio_api import plugin

    assert [one.name for one in plugin.lmx_commands()] == [("lms",)]


# --- the command of that name --------------------------------------------------------------------


@pytest.fixture
def scripts(tmp_path, monkeypatch) -> Path:
    """A folder for commands, which is all of the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    real = sysconfig.get_path
    monkeypatch.setattr(
        sysconfig, "get_path", lambda name: str(folder) if name == "scripts" else real(name)
    )
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_it_is_installed_once_and_removed(lms, scripts):
    assert lms("install").status == 0
    assert lms("install").status == 0  # anew, after an update of Python
    told = subprocess.run([scripts / "lms", "version", "--json"], capture_output=True, check=True)
    assert json.loads(told.stdout).keys() == {"version"}
    assert lms("uninstall").status == 0
    assert list(scripts.iterdir()) == []
    assert lms("uninstall").status == 1


@pytest.mark.parametrize("place", ["path", "scripts"])
def test_another_lms_stays(lms, scripts, tmp_path, monkeypatch, place):
    folder = scripts
    if place == "path":
        folder = tmp_path / "lmstudio"
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{scripts}")
    other = folder / "lms"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    refused = lms("install")
    assert (refused.status, str(other) in refused.err) == (1, True)
    assert other.read_text() == "#!/bin/sh\n"
    assert install.own_file().exists() == (place == "scripts")
    assert lms("uninstall").status == 1
    assert other.exists()
