"""The command line: whose commands there are, and what a wrong config leaves of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmx_kernel.cli import plain_serve

PLUGIN = """
from cyclopts import App
from lmx_kernel.hookspecs import hookimpl

class Surface:
    name, prefix, scope = "sound", "/sound", "sound"

    def routes(self):
        return []

    def operations(self):
        return []

    def render_error(self, error):
        return {}

    def example(self, url, model):
        return ""

def app(name):
    made = App(name=name)
    made.default(lambda: print("by a plugin"))
    return made

@hookimpl
def lmx_commands():
    return [app("mine"), app("ls")]

@hookimpl
def lmx_api_surfaces(kernel):
    return [Surface()]
"""


@pytest.fixture
def lmx(tmp_path):
    """Return a function that runs `lmx`, with the home's config."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "lmx_kernel", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "LMX_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)},
            check=False,
        )

    return run


@pytest.fixture
def broken(tmp_path):
    """Make the config a wrong one."""
    (tmp_path / "config.toml").write_text("[server]\nport = 'x'\n")


@pytest.fixture
def extended(tmp_path):
    """Add a plugin with commands and a surface."""
    (tmp_path / "sound.py").write_text(PLUGIN)
    (tmp_path / "config.toml").write_text('[plugins]\ndiscover = false\nmodules = ["sound"]\n')


@pytest.mark.usefixtures("broken")
def test_a_command_of_a_plugin_needs_a_good_config(lmx):
    for command in (("service", "status"), ("nonsense",)):
        outcome = lmx(*command)
        assert outcome.returncode == 78
        assert "config.toml:2: server.port" in outcome.stderr


@pytest.mark.usefixtures("broken")
def test_the_kernels_own_commands_need_none(lmx):
    assert lmx("key", "list").returncode == 0
    assert lmx("--version").stdout.strip()
    helped = lmx("--help")
    assert helped.returncode == 0
    assert "serve" in helped.stdout
    assert "lmx config check" in helped.stderr
    added = lmx("key", "add", "bot", "--scope", "admin")
    assert added.returncode == 0
    assert "not checked" in added.stderr


@pytest.mark.usefixtures("extended")
def test_a_plugin_adds_commands_but_takes_none_over(lmx):
    assert lmx("mine").stdout == "by a plugin\n"
    assert "by a plugin" not in lmx("ls").stdout
    assert "left out" in lmx("--help").stderr


@pytest.mark.usefixtures("extended")
def test_a_key_is_good_for_what_surfaces_ask_for(lmx):
    assert lmx("key", "add", "bot", "--scope", "sound").returncode == 0
    refused = lmx("key", "add", "other", "--scope", "sound", "--scope", "admin")
    assert refused.returncode == 1
    assert refused.stderr == "no scope is called 'admin'; there are: sound\n"


@pytest.mark.usefixtures("extended")
def test_a_slip_is_answered_with_the_command_that_was_meant(lmx):
    for _ in range(2):  # also once it is known which plugin has which command
        slip = lmx("dctor")
        assert slip.returncode == 2
        assert "doctor" in slip.stdout + slip.stderr


@pytest.mark.parametrize("more", [(), ("--supervised",)])
@pytest.mark.parametrize("form", ["--config {}", "--config={}"], ids=["plain", "with the library"])
def test_the_daemon_of_a_service_imports_no_command_line(tmp_path, form, more):
    config = tmp_path / "config.toml"
    config.write_text("[server]\nport = true\n")
    words = ("serve", *form.format(config).split(), *more)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lmx_kernel", *words],
        env={**os.environ, "LMX_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (0 if more else 78)
    assert "config.toml:2: server.port" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"lmx_kernel.daemon.serve", "lmx_openai_api.settings"} < imported
    assert ("cyclopts" in imported) == ("=" in form)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("serve", (None, False)),
        ("serve --supervised", (None, True)),
        ("serve --config a.toml", (Path("a.toml"), False)),
        ("serve --supervised --config a.toml", (Path("a.toml"), True)),
        ("serve --config a.toml --supervised", (Path("a.toml"), True)),
        ("serve --config --supervised", None),
        ("serve --config", None),
        ("serve --config -h", None),
        ("serve --help", None),
        ("serve a.toml", None),
        ("serve --config a.toml b.toml", None),
        ("--supervised serve", None),
        ("status serve", None),
        ("", None),
    ],
)
def test_only_what_supervisors_write_is_read_without_the_library(arguments, meant):
    assert plain_serve.read(arguments.split()) == meant
