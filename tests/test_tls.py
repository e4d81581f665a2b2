"""A daemon with TLS, its own commands, and configs that cannot be used."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from lmx_kernel.cli import diagnostics
from lmx_kernel.config import ConfigError, ConfigMissingError
from lmx_kernel.daemon.checks import check_server
from lmx_kernel.daemon.run_file import answers, find_daemon, read
from lmx_kernel.http.port import greeting_at
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.tls import pinned_context
from lmx_kernel.kernel.boot import boot
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

CERTIFICATES = Path(__file__).parent / "http" / "certificates"
CERT, KEY = CERTIFICATES / "first.cert", CERTIFICATES / "first.key"


def server(folder, *lines):
    return write_config(folder, config="[server]\n" + "\n".join(lines) + "\n")


def lmx(home, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "lmx_kernel", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LMX_HOME": str(home), **env},
        check=False,
    )


async def test_a_daemon_and_its_commands_speak_tls(tmp_path):
    cert = shutil.copy(CERT, tmp_path / "cert.pem")
    write_fake_models(tmp_path, {"m": FakeModel()})
    config = server(tmp_path, f'tls_cert = "{cert}"', f'tls_key = "{KEY}"')
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60, verify=pinned_context(CERT)) as http,
    ):
        assert daemon.url.startswith("https://127.0.0.1:")
        assert (await http.get("/health")).status_code == 200
        running = read(tmp_path)
        assert (running.url, running.certificate) == (daemon.url, cert)
        assert await asyncio.to_thread(answers, running)
        ps = await asyncio.to_thread(lmx, tmp_path, "ps", "--config", str(config))
        assert (ps.returncode, ps.stderr) == (0, "")
        greeting = await asyncio.to_thread(greeting_at, "127.0.0.1", http.base_url.port)
        assert greeting.name == "LMX"

        shutil.copy(CERTIFICATES / "second.cert", cert)  # not what the daemon shows
        assert not await asyncio.to_thread(answers, running)
        ps = await asyncio.to_thread(lmx, tmp_path, "ps", "--config", str(config))
        assert ps.returncode == 1
        assert "CERTIFICATE_VERIFY_FAILED" in ps.stderr


def test_commands_trust_the_certificate_of_the_config(tmp_path):
    settings = boot(server(tmp_path, f'tls_cert = "{CERT}"', f'tls_key = "{KEY}"')).settings
    address = find_daemon(settings, {})
    assert (address.url, address.certificate) == ("https://127.0.0.1:1234", CERT)
    elsewhere = find_daemon(settings, {"LMX_URL": "https://far.example"})
    assert elsewhere.certificate is None


WRONG = {
    "missing": ([f'tls_key = "{KEY}"', 'tls_cert = "/none.pem"'], 1, "tls_cert", "No such file"),
    "no certificate": ([f'tls_key = "{KEY}"'], 0, "tls_key", "without a certificate"),
    "no key": ([f'tls_cert = "{CERT}"'], 0, "tls_cert", "no private key"),
    "another key": (
        [f'tls_cert = "{CERT}"', f'tls_key = "{CERTIFICATES / "second.key"}"'],
        1,
        "tls_key",
        "not the key of",
    ),
    "encrypted": (
        [f'tls_cert = "{CERT}"', f'tls_key = "{CERTIFICATES / "encrypted.key"}"'],
        1,
        "tls_key",
        "openssl pkey",
    ),
    "weak key": (['host = "0.0.0.0"', 'api_key = "letmein"'], 1, "api_key", "lmx key add"),
    "open": (["port = 99", 'host = "0.0.0.0"'], 1, "host", "lmx key add"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_told_with_file_line_and_key(tmp_path, monkeypatch, case):
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    lines, offset, key, words = WRONG[case]
    config = server(tmp_path, *lines)
    line = config.read_text().split("\n").index(lines[offset]) + 1
    with pytest.raises(ConfigError) as caught:
        check_server(boot(config))
    assert str(caught.value).startswith(f"{config}:{line}: server.{key}: ")
    assert words in str(caught.value)
    assert "letmein" not in str(caught.value)
    assert not isinstance(caught.value, ConfigMissingError)


def test_a_variable_that_cannot_be_used_is_named(tmp_path):
    env = {"LMX_HOME": str(tmp_path), "LMX_SERVER_HOST": "::", "LMX_SERVER_API_KEY": "letmein"}
    with pytest.raises(ConfigError, match=r"^LMX_SERVER_API_KEY: server\.api_key: ") as caught:
        check_server(boot(server(tmp_path), environ={**os.environ, **env}))
    assert "letmein" not in str(caught.value)


def test_a_relative_path_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"server\.tls_cert: expected a path that begins with /"):
        boot(server(tmp_path, 'tls_cert = "cert.pem"'))


def test_a_certificate_on_a_disk_that_comes_later_is_waited_for(tmp_path):
    with pytest.raises(ConfigMissingError, match=r"server\.tls_cert"):
        check_server(boot(server(tmp_path, f'tls_cert = "{tmp_path}/disk/cert.pem"')))


@pytest.mark.parametrize("command", ["serve", "config check"])
def test_a_bad_certificate_ends_with_78(tmp_path, command):
    config = server(tmp_path, f'tls_cert = "{KEY}"')
    ended = lmx(tmp_path, *command.split(), "--config", str(config))
    assert ended.returncode == 78
    assert "server.tls_cert" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("days", "is_ok", "words"),
    [(-30, True, "30 days more"), (-3, False, "3 days more"), (5, False, "expired 5 days ago")],
)
def test_doctor_looks_at_the_certificate(monkeypatch, days, is_ok, words):
    settings = ServerSettings(tls_cert=CERT, tls_key=KEY)
    [found] = diagnostics._certificate(settings)
    assert found.is_ok
    expires = time.time() + float(found.text.split()[-3]) * diagnostics.DAY_S
    monkeypatch.setattr(diagnostics.time, "time", lambda: expires + days * diagnostics.DAY_S)
    [found] = diagnostics._certificate(settings)
    assert (found.is_ok, words in found.text) == (is_ok, True), found.text


def test_doctor_says_why_a_certificate_cannot_be_used():
    [found] = diagnostics._certificate(ServerSettings(tls_cert=KEY))
    assert (found.is_ok, "no certificate" in found.text) == (False, True)
    assert list(diagnostics._certificate(ServerSettings())) == []
