"""Keys: the file, the command, and a daemon that runs."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import httpx2 as httpx
import pytest
import structlog
from attrs import evolve

from lmx_kernel.access import keys as module
from lmx_kernel.access.keys import KeyFile, Keyring, KeysDamagedError, KeysNotSavedError
from lmx_kernel.cli import command_line, main
from lmx_kernel.cli import keys as cli_keys
from lmx_kernel.config import Settings, disk_sync
from lmx_kernel.config.private_file import write_private
from lmx_kernel.daemon.run_file import Address, Running, find_daemon, local_url, published, read
from lmx_kernel.errors import InvalidRequestError, NotFoundError
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models
from lmx_kernel.types import Priority, Terms

ADMIN = """
from lmx_kernel.hookspecs import hookimpl

class Resource:
    async def on_get(self, req, resp):
        resp.media = {"key": req.scope["state"]["key"]}

class Admin:
    name, prefix, scope = "admin", "/admin", "admin"
    def routes(self): return [("/admin/things", Resource())]
    def operations(self): return []
    def render_error(self, error): return {"admin": error.code}
    def example(self, url, model): return ""

@hookimpl
def lmx_api_surfaces(kernel): return [Admin()]
"""


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path)


@pytest.fixture
def look_always(monkeypatch):
    """Let a keyring look at its file whenever it is asked."""
    monkeypatch.setattr(module, "LOOK_S", 0)


def lmx(home, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "lmx_kernel", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LMX_HOME": str(home), **env},
        check=False,
    )


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- the file ------------------------------------------------------------------------------------


def test_a_key_is_stored_without_its_token(file):
    token = file.add("bot", ("inference",))
    assert token.startswith("lmx-")
    assert len(token) == 47
    assert mode(file.path) == 0o600
    assert token[4:] not in file.path.read_text()
    (key,) = file.read()
    assert (key.name, key.scopes, key.digest in repr(key)) == ("bot", ("inference",), False)
    assert Keyring(file).find(token) == key


def test_no_two_tokens_are_alike(file):
    assert len({file.add(f"bot{n}", ()) for n in range(10)}) == 10


@pytest.mark.parametrize("name", ["", "a b", "config", "local", "../x", "a\n", "x" * 65, "-x"])
def test_a_name_is_one_that_a_log_can_show(file, name):
    with pytest.raises(InvalidRequestError):
        file.add(name, ("inference",))
    assert file.read() == ()


def test_a_name_is_given_once(file):
    token = file.add("bot", ("inference",))
    with pytest.raises(InvalidRequestError, match="revoke it first"):
        file.add("bot", ("admin",))
    assert Keyring(file).find(token).scopes == ("inference",)


def test_revoking(file):
    token, kept = file.add("bot", ("inference",)), file.add("other", ("admin",))
    assert [key.name for key in file.revoke("bot")] == ["other"]
    keyring = Keyring(file)
    assert keyring.find(token) is None
    assert keyring.find(kept).name == "other"
    with pytest.raises(NotFoundError):
        file.revoke("bot")


def test_terms_are_kept_and_changed_one_by_one(file):
    file.add("bot", ("inference",), Terms(weight=2, priority=Priority.HIGH))
    file.change("bot", lambda terms: evolve(terms, max_running=3))
    (key,) = file.read()
    assert key.terms == Terms(weight=2, priority=Priority.HIGH, max_running=3)
    with pytest.raises(NotFoundError):
        file.change("nobody", lambda terms: terms)


def test_a_file_from_before_keys_had_terms_is_read(file):
    token = file.add("bot", ("inference",))
    old = [
        {k: v for k, v in one.items() if k != "terms"} for one in json.loads(file.path.read_text())
    ]
    file.path.write_text(json.dumps(old))
    assert Keyring(file).find(token).terms == Terms()


def test_the_commands_set_and_list_terms(tmp_path):
    made = lmx(tmp_path, "key", "add", "bot", "--weight", "2", "--tokens-per-minute", "9")
    assert made.returncode == 0, made.stderr
    changed = lmx(tmp_path, "key", "set", "bot", "--priority", "high", "--tokens-per-minute", "0")
    assert "high priority, weight 2" in changed.stdout
    assert KeyFile(tmp_path).read()[0].terms == Terms(weight=2, priority=Priority.HIGH)
    refused = lmx(tmp_path, "key", "set", "bot", "--weight", "0")
    assert refused.returncode
    assert "'weight' must be >=" in refused.stderr
    listed = lmx(tmp_path, "key", "list", COLUMNS="200").stdout
    assert "high priority, weight 2" in listed
    assert "?" in listed, "no daemon tells the usage"


def test_the_list_has_what_each_key_has_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    for name in ("bot", "idle"):
        KeyFile(tmp_path).add(name, ("inference",))
    used = {"name": "bot", "open": 1, "requests": 7, "prompt_tokens": 30, "completion_tokens": 12}
    daemon = SimpleNamespace(get=lambda path: {"/admin/status": {"keys": [used]}}[path])
    monkeypatch.setattr(cli_keys.Client, "find", lambda: daemon)
    cli_keys.list_keys()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[-2:] for row in rows if row[0] in ("bot", "idle")] == [["7", "42"], ["0", "0"]]


async def test_keys_made_at_once_are_all_kept(tmp_path):
    adds = [asyncio.to_thread(KeyFile(tmp_path).add, f"bot{n}", ("admin",)) for n in range(20)]
    tokens = await asyncio.gather(*adds)
    keyring = Keyring(KeyFile(tmp_path))
    assert [keyring.find(token).name for token in tokens] == [f"bot{n}" for n in range(20)]


DAMAGE = {
    "empty": b"",
    "cut": b'[{"name":"bot","scopes":["inf',
    "not UTF-8": b'[{"name":"\xff"}]',
    "another shape": b'{"bot":"admin"}',
    "a weight of nothing": b"""[{"name":"bot","scopes":["admin"],"digest":"x",
        "created":"2026-01-01T00:00:00Z","terms":{"weight":0}}]""",
    "no digest": b'[{"name":"bot","scopes":["admin"],"created":"2026-01-01T00:00:00Z"}]',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_lets_nobody_in_and_is_not_overwritten(file, look_always, damage):
    token = file.add("bot", ("inference",))
    keyring = Keyring(file, "from the config")
    assert keyring.find(token)
    file.path.write_bytes(DAMAGE[damage])
    with structlog.testing.capture_logs() as told:
        assert keyring.find(token) is None
    assert [line["event"] for line in told] == ["keys_damaged", "keys_changed"]
    assert not Keyring(file).is_empty
    assert keyring.find("from the config").name == "config"
    for change in (file.read, lambda: file.add("x", ()), lambda: file.revoke("bot")):
        with pytest.raises(KeysDamagedError, match="repair or delete"):
            change()
    assert file.path.read_bytes() == DAMAGE[damage]


def test_a_keyring_sees_changes_but_looks_once_a_second(file, monkeypatch):
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    keyring = Keyring(file)
    assert keyring.is_empty
    token = file.add("bot", ("inference",))
    now += 0.9
    assert keyring.find(token) is None
    now += 0.1
    assert keyring.find(token).name == "bot"
    file.revoke("bot")
    now += 1
    assert keyring.find(token) is None
    assert keyring.is_empty


def test_a_private_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "x"
    write_private(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_private(path, b"new")
    assert [path.read_bytes()] == [one.read_bytes() for one in path.parent.iterdir()]
    assert path.read_bytes() == b"old"


@pytest.fixture
def calls(monkeypatch):
    """Record what is synced, and by which call."""
    seen = []

    def synced(name):
        def call(handle, *_):
            seen.append((name, "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"))

        return call

    monkeypatch.setattr(os, "fsync", synced("fsync"))
    monkeypatch.setattr(disk_sync.fcntl, "fcntl", synced("F_FULLFSYNC"))
    monkeypatch.delattr(disk_sync.fcntl, "F_FULLFSYNC", raising=False)
    return seen


def test_a_private_file_and_its_name_are_on_the_disk(tmp_path, calls):
    """Else a power cut would bring a revoked key back."""
    write_private(tmp_path / "x", b"new")
    assert calls == [("fsync", "file"), ("fsync", "folder")]


def test_on_macos_the_cache_of_the_disk_is_emptied(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(disk_sync.fcntl, "F_FULLFSYNC", 51, raising=False)
    write_private(tmp_path / "x", b"new")
    assert calls == [("F_FULLFSYNC", "file"), ("F_FULLFSYNC", "folder")]


def test_a_file_system_that_cannot_empty_it_is_synced_as_elsewhere(tmp_path, calls, monkeypatch):
    def refuse(*_):
        raise OSError(45, "Operation not supported")

    monkeypatch.setattr(disk_sync.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(disk_sync.fcntl, "fcntl", refuse)
    write_private(tmp_path / "x", b"new")
    assert calls == [("fsync", "file"), ("fsync", "folder")]


def test_a_folder_that_cannot_be_synced_is_no_problem(tmp_path, monkeypatch):
    real = os.fsync

    def refuse_folders(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_private(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_full_disk_is_told_and_changes_no_key(file, monkeypatch):
    token = file.add("bot", ("inference",))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    for change in (lambda: file.add("other", ()), lambda: file.revoke("bot")):
        with pytest.raises(KeysNotSavedError, match=r"disk full.*no key has changed"):
            change()
    assert [key.name for key in file.read()] == ["bot"]
    assert Keyring(file).find(token)


def test_a_command_that_cannot_write_says_so_in_one_line(tmp_path):
    (tmp_path / "home").write_text("no folder")
    ended = lmx(tmp_path / "home", "key", "add", "bot")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "keys.json cannot be written" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_no_command_ends_with_a_traceback_of_the_system(monkeypatch, capsys):
    def fail(_arguments):
        raise PermissionError(13, "Permission denied", "/place")

    monkeypatch.setattr(command_line, "command_line", fail)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert (ended.value.code, capsys.readouterr().err) == (1, "/place: Permission denied\n")


# --- the run file --------------------------------------------------------------------------------


def settings(home, **server):
    return Settings(home, {ServerSettings: ServerSettings(**server)})


def test_a_daemon_is_found_by_its_run_file_while_it_runs(tmp_path):
    running = Running(url="http://127.0.0.1:7", pid=os.getpid(), token="t")
    config = settings(tmp_path, host="::", port=99, api_key="k")
    with published(tmp_path, running):
        assert mode(tmp_path / "run" / "daemon.json") == 0o600
        assert find_daemon(config, {}) == Address("http://127.0.0.1:7", "t")
        assert find_daemon(config, {"LMX_API_KEY": "mine"}) == Address("http://127.0.0.1:7", "mine")
        assert find_daemon(config, {"LMX_URL": "http://far:1/"}) == Address("http://far:1", "")
    assert find_daemon(config, {}) == Address("http://[::1]:99", "k")
    assert not (tmp_path / "run" / "daemon.json").exists()


def test_the_file_of_a_daemon_that_died_or_is_damaged_is_passed_over(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = tmp_path / "run" / "daemon.json"
    for text in (json.dumps({"url": "x", "pid": dead.pid, "token": "t"}), "{", ""):
        write_private(path, text.encode())
        assert read(tmp_path) is None


def test_a_daemon_leaves_the_file_of_its_successor_alone(tmp_path):
    first = Running(url="a", pid=os.getpid(), token="t")
    second = Running(url="b", pid=os.getpid(), token="u")
    with published(tmp_path, second):
        with published(tmp_path, first):
            write_private(
                tmp_path / "run" / "daemon.json", b'{"url":"b","pid":%d,"token":"u"}' % second.pid
            )
        assert read(tmp_path) == second


def test_a_home_that_cannot_be_written_does_not_stop_the_daemon(tmp_path):
    (tmp_path / "run").write_text("no folder")
    with published(tmp_path, Running(url="a", pid=os.getpid(), token="t")):
        assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("fd00::2", "http://[fd00::2]:1"),
        ("name", "http://name:1"),
    ],
)
def test_where_this_machine_reaches_a_server(host, url):
    assert local_url("http", host, 1) == url


# --- the command, and a daemon that runs ---------------------------------------------------------


def test_the_command(tmp_path):
    added = lmx(tmp_path, "key", "add", "boss", "--scope", "admin", "--scope", "inference")
    assert Keyring(KeyFile(tmp_path)).find(added.stdout.strip()).scopes == ("admin", "inference")
    assert lmx(tmp_path, "key", "add", "bot").returncode == 0
    assert KeyFile(tmp_path).read()[1].scopes == ("inference",)
    listed = lmx(tmp_path, "key", "list").stdout
    assert "boss" in listed
    assert added.stdout.strip() not in listed
    assert lmx(tmp_path, "key", "revoke", "boss").returncode == 0
    gone = lmx(tmp_path, "key", "revoke", "boss")
    assert (gone.returncode, gone.stderr) == (1, "there is no key boss\n")
    assert lmx(tmp_path, "key", "add", "x", "--scope", "root").returncode
    assert [key.name for key in KeyFile(tmp_path).read()] == ["bot"]
    KeyFile(tmp_path).path.write_text("{")
    damaged = lmx(tmp_path, "key", "list")
    assert damaged.returncode == 1
    assert "keys.json is damaged" in damaged.stderr


def test_a_bind_to_the_network_without_any_key_is_refused(tmp_path):
    config = write_config(tmp_path)
    result = lmx(tmp_path, "serve", "--config", str(config), LMX_SERVER_HOST="0.0.0.0")
    assert result.returncode == 78
    assert "lmx key add" in result.stderr


@pytest.fixture
def config(tmp_path):
    write_fake_models(tmp_path, {"m": FakeModel()})
    (tmp_path / "staged_admin.py").write_text(ADMIN)
    return write_config(tmp_path, ("lmx_openai_api.plugin", "staged_admin"))


async def until(get, status):
    """Ask until the answer has this status: the daemon looks at its keys once a second."""
    async with asyncio.timeout(60):
        while (await get()).status_code != status:
            await asyncio.sleep(0.05)


async def test_a_running_daemon_sees_keys_come_and_go(tmp_path, config):
    """Fault 18 from outside, over two surfaces."""
    file = KeyFile(tmp_path)
    async with (
        running_daemon(config, PYTHONPATH=str(tmp_path)) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        assert (await http.get("/admin/things")).json() == {"key": ""}
        token = file.add("bot", ("inference",))
        await until(lambda: http.get("/admin/things"), 401)
        assert (await http.get("/v1/models")).status_code == 401
        assert (await http.get("/health")).status_code == 200

        headers = {"authorization": f"Bearer {token}"}
        assert (await http.get("/v1/models", headers=headers)).status_code == 200
        assert (await http.get("/admin/things", headers=headers)).status_code == 403

        ps = await asyncio.to_thread(lmx, tmp_path, "ps", "--config", str(config))
        assert ps.returncode == 0, ps.stderr
        local = {"authorization": f"Bearer {read(tmp_path).token}"}
        assert (await http.get("/admin/things", headers=local)).json() == {"key": "local"}

        file.add("other", ("admin",))
        file.revoke("bot")
        await until(lambda: http.get("/v1/models", headers=headers), 401)
        assert await daemon.stop() == 0
    assert not (tmp_path / "run" / "daemon.json").exists()


async def test_a_daemon_in_the_network_stays_shut_when_its_last_key_is_revoked(tmp_path, config):
    token = KeyFile(tmp_path).add("bot", ("inference",))
    headers = {"authorization": f"Bearer {token}"}
    env = {"PYTHONPATH": str(tmp_path), "LMX_SERVER_HOST": "0.0.0.0"}
    async with (
        running_daemon(config, **env),
        httpx.AsyncClient(base_url=read(tmp_path).url, timeout=60) as http,
    ):
        assert (await http.get("/v1/models", headers=headers)).status_code == 200
        KeyFile(tmp_path).revoke("bot")
        await until(lambda: http.get("/v1/models", headers=headers), 401)
        assert (await http.get("/v1/models")).status_code == 401
