"""`lmx doctor` names what there is of an LM Studio, and what is not taken over."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from attrs import evolve
from lmx_lmstudio_api.findings import examine
from lmx_model_folders.settings import FolderSettings

from lmx_kernel.config import Settings
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.testing.stub_kernel import stub_card


class LMStudio(BaseHTTPRequestHandler):
    """Answers as LM Studio does: with 200 at any path."""

    def do_GET(self) -> None:
        found = {"lmstudio": True} if "greeting" in self.path else {"error": "Unexpected endpoint"}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), LMStudio) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / ".lmstudio"


def told(*models, folders=FolderSettings(), **server):  # noqa: B008 - frozen
    settings = {ServerSettings: ServerSettings(**server), ModelSettings: ModelSettings()}
    if folders is not None:  # its plugin is on
        settings[FolderSettings] = folders
    found = list(examine(Settings(Path("/nowhere"), settings), models))
    return "\n".join(one.text for one in found), all(one.is_ok for one in found)


def write(file: Path, content: object = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def test_without_an_lm_studio_only_what_its_clients_need_is_told(home):
    text, is_ok = told()
    assert is_ok
    assert len(text.splitlines()) == 2
    assert "41343, 52993, 16141, 39414, 22931" in text
    assert "lmx lms install" in text
    assert "41343" not in told(listen=("127.0.0.1:1234", "127.0.0.1:41343"))[0]


def test_what_is_there_of_one_is_named(home):
    write(home / "mcp.json")
    write(home / "config-presets" / "mine.json")
    write(home / ".internal" / "user-concrete-model-default-config" / "a" / "b.json")
    theirs = {"port": 1, "cors": True, "networkInterface": "0.0.0.0"}
    theirs["justInTimeModelLoading"] = False
    write(home / ".internal" / "http-server-config.json", theirs)
    (home / "models").mkdir()
    model = evolve(stub_card("maker/one"), path=home / "models" / "maker" / "one" / "1.gguf")
    text, is_ok = told(model, stub_card("other"))
    assert is_ok
    for part in (
        f"files are in {home}",
        f"models in {home / 'models'} that can be loaded: 1",
        "its port was 1;",
        "open to other machines",
        "allowed_origins",
        "models.jit",
        "MCP",
        "presets",
        "settings of single models",
    ):
        assert part in text
    assert "lm_studio is off" in told(folders=FolderSettings(lm_studio=False))[0]
    assert "lm_studio is off" in told(folders=None)[0]


def test_a_server_that_runs_is_wrong_only_at_a_port_of_ours(home, port):
    write(home / ".internal" / "http-server-config.json", {"port": port})
    text, is_ok = told(port=port)
    assert (f"its server runs at port {port}: stop it" in text, is_ok) == (True, False)
    text, is_ok = told()
    assert (f"its server runs at port {port}" in text, is_ok) == (True, True)


@pytest.mark.parametrize("damage", [[], {"port": "x"}, {"port": -1, "networkInterface": 7}])
def test_damaged_files_are_passed_over(home, damage):
    write(home / ".internal" / "http-server-config.json", damage)
    assert told()[1]
