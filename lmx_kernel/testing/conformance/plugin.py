"""What every plugin of the group ``lmx`` owes, whatever its kind."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import pytest

from lmx_kernel.config import Settings
from lmx_kernel.interfaces import PluginState
from lmx_kernel.kernel.boot import Booted, boot
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.harness import write_config

HEAVY = frozenset(
    {"numpy", "torch", "mlx", "mlx_lm", "llama_cpp", "transformers", "llguidance", "pytest"}
)
IMPORTS = """
import json, sys, time
import lmx_kernel.plugins.manager
before, start_s = set(sys.modules), time.process_time()
__import__({module!r})
took_s = time.process_time() - start_s
print(json.dumps([sorted(set(sys.modules) - before), took_s]))
"""
MOST_IMPORT_S = 0.5


class _Named(Protocol):
    name: str


T = TypeVar("T", bound=_Named)


class PluginConformance:
    """The base of the kinds whose modules the daemon loads.

    :cvar module: the import path of the plugin's module, as its entry point has it.
    :cvar requires: the import paths of the plugins that ``lmx_requires`` names; they are loaded
        beside it.
    :cvar heavy: further libraries that the daemon must not import.
    """

    module: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    heavy: ClassVar[frozenset[str]] = frozenset()

    @property
    def modules(self) -> tuple[str, ...]:
        """The plugin, and those that it requires."""
        return (self.module, *self.requires)

    def config(self, folder: Path) -> str:
        """Return TOML for the config that the plugin is tried with; by default nothing.

        :param folder: an empty folder for the test's own files.
        """
        return ""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        """LMX's own folder, for this test alone."""
        home = tmp_path / "lmx-home"
        home.mkdir()
        return home

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """An empty folder for the test's own files."""
        folder = tmp_path / "files"
        folder.mkdir()
        return folder

    @pytest.fixture
    def booted(self, home: Path, folder: Path) -> Booted:
        """The config and the plugin, as the daemon loads them."""
        path = write_config(home, self.modules, self.config(folder))
        environ = {key: value for key, value in os.environ.items() if not key.startswith("LMX_")}
        return boot(path, environ={**environ, "LMX_HOME": str(home)})

    @pytest.fixture
    def plugins(self, booted: Booted) -> Plugins:
        """The plugin, and the fake backend."""
        return booted.plugins

    @pytest.fixture
    def settings(self, booted: Booted) -> Settings:
        """The config."""
        return booted.settings

    def test_it_is_loaded(self, plugins: Plugins) -> None:
        check_active(plugins, self.module)
        [status] = [one for one in plugins.statuses if one.name == self.module]
        assert status.hooks, f"{self.module} has no function that is marked with hookimpl"

    def test_it_is_registered(self) -> None:
        entries = [entry for one in distributions() for entry in one.entry_points]
        found = {entry.module for entry in entries if entry.group == "lmx"}
        assert self.module in found, f"no entry point of the group lmx names {self.module}"

    def test_its_settings_have_defaults(self, plugins: Plugins) -> None:
        for section in plugins.settings_sections():
            assert section.cls() is not None
            assert section.name.isidentifier()

    def test_the_daemon_imports_nothing_heavy_with_it(self) -> None:
        done = subprocess.run(  # noqa: S603 - a module of the author
            [sys.executable, "-P", "-c", IMPORTS.format(module=self.module)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        *said, line = done.stdout.splitlines()
        assert not said, "it prints when it is imported"
        modules, took_s = json.loads(line)
        found = {name.partition(".")[0] for name in modules} & (HEAVY | self.heavy)
        assert not found, f"the daemon would import {', '.join(sorted(found))}"
        assert took_s < MOST_IMPORT_S, f"importing it takes {took_s:.2f} s of CPU time"

    def own(self, plugins: Plugins, hook: str, found: Iterable[T]) -> list[T]:
        """Return those of the objects that the plugin itself returned from a hook."""
        return [one for one in found if plugins.owner_of(hook, one.name) == self.module]

    def hook(self, name: str) -> object:
        """Return a hook of the plugin, to be called as it is."""
        return getattr(importlib.import_module(self.module), name)


def check_active(plugins: Plugins, module: str) -> None:
    """Check that the plugin was not disabled for a fault in one of its hooks."""
    [status] = [one for one in plugins.statuses if one.name == module]
    assert status.state is PluginState.ACTIVE, status.reason


def check_name(name: object) -> None:
    """Check what is listed, logged and written into configs."""
    assert isinstance(name, str)
    assert name, "it needs a name"
    assert name.isprintable(), name
    assert name == name.strip(), repr(name)
