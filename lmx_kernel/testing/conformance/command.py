"""What LMX expects of commands for the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import frozen
from cyclopts import App

from lmx_kernel.cli.command_line import BUILTIN
from lmx_kernel.cli.main import main
from lmx_kernel.cli.terminal import CONTROL
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active
from lmx_kernel.testing.harness import write_config

TIMEOUT_S = 60


class CommandConformance(PluginConformance):
    """For a plugin with the hook ``lmx_commands``.

    :cvar arguments: words behind ``lmx`` for a run that succeeds, the command's name first.
    :cvar needs_daemon: whether that run asks a running daemon: without one it fails with a message.
    :cvar says: text that it writes to standard output.
    """

    arguments: ClassVar[tuple[str, ...]]
    needs_daemon: ClassVar[bool] = False
    says: ClassVar[str] = ""

    def lmx(self, home: Path, *words: str) -> Done:
        """Run ``lmx`` with the plugin, and without any daemon."""
        write_config(home, self.modules, self.config(home))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LMX_HOME", str(home))
            patch.setenv("COLUMNS", "200")
            patch.setattr(sys, "argv", ["lmx", *words])
            return run_main()

    @pytest.fixture
    def apps(self, plugins: Plugins) -> list[App]:
        """The commands of the plugin."""
        apps = dict(plugins.commands_by_plugin()).get(self.module)
        check_active(plugins, self.module)
        assert apps, "lmx_commands returns nothing"
        return apps

    def test_names_are_free(self, apps: list[App]) -> None:
        names = [name for app in apps for name in app.name]
        assert not BUILTIN.keys() & set(names), "LMX has a command of that name"
        assert len(set(names)) == len(names), names
        assert self.arguments[0] in names

    def test_help_is_complete(self, apps: list[App], home: Path) -> None:
        name = self.arguments[0]
        [app] = [one for one in apps if name in one.name]
        done = self.lmx(home, name, "--help")
        check_clean(done)
        assert done.returncode == 0, done.stderr
        assert f"lmx {name}" in done.stdout
        listed = self.lmx(home, "--help").stdout
        line = next(line for line in listed.splitlines() if f" {name} " in f"{line} ")
        assert line.split(name, 1)[1].strip("│ "), f"{name} has no line in `lmx --help`"
        assert app is not None

    def test_it_does_its_work(self, apps: list[App], home: Path) -> None:
        done = self.lmx(home, *self.arguments)
        check_clean(done)
        if self.needs_daemon:
            check_failed(done)
            return
        assert done.returncode == 0, done.stderr
        assert self.says in done.stdout
        assert done.stdout.strip(), "it writes nothing to standard output"
        assert not done.stderr, "standard error is for errors"
        assert self.lmx(home, *self.arguments).stdout == done.stdout, "it differs from run to run"

    def test_it_works_as_a_program(self, home: Path) -> None:
        write_config(home, self.modules, self.config(home))
        done = subprocess.run(  # noqa: S603 - a command of the author
            [sys.executable, "-P", "-m", "lmx_kernel", *self.arguments],
            env={**os.environ, "LMX_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
        check_clean(Done(done.returncode, done.stdout, done.stderr))
        assert done.returncode == int(self.needs_daemon), done.stderr

    def test_json_is_for_programs(self, apps: list[App], home: Path) -> None:
        shown = self.lmx(home, self.arguments[0], "--help").stdout
        if "--json" not in shown:
            pytest.skip("it has no option --json")
        done = self.lmx(home, *self.arguments, "--json")
        check_clean(done)
        if self.needs_daemon:
            check_failed(done)
            return
        assert done.returncode == 0, done.stderr
        value: Any = json.loads(done.stdout)
        assert value is not None

    def test_wrong_arguments_are_refused(self, apps: list[App], home: Path) -> None:
        for words in (("--no-such-option",), ("one", "too", "many", "words", "here")):
            done = self.lmx(home, self.arguments[0], *words)
            check_clean(done)
            assert done.returncode != 0, f"it takes {words}"
            assert done.stderr or done.stdout, "it does not say what is wrong"


@frozen
class Done:
    """How a command ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_main() -> Done:
    """Run the command of ``sys.argv`` in this process."""
    status = 0
    with (
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
        warnings.catch_warnings(action="ignore"),  # cyclopts': that a test runs it
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                err.write(end.code)
    return Done(status, out.getvalue(), err.getvalue())


def check_clean(done: Done) -> None:
    """Check that what a command writes is for people."""
    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text, text
        assert not CONTROL.search(text), repr(text)


def check_failed(done: Done) -> None:
    """Check that a command said why it failed."""
    assert done.returncode == 1, f"it exits with {done.returncode}"
    assert done.stderr.strip(), "it does not say what is wrong"
    assert not done.stdout, "errors go to standard error"
