"""Headers are read in a child process, and whatever they do to it, the daemon's goes on."""

from __future__ import annotations

import importlib
import os
import sys

import pytest
from attrs import define

from lmx_kernel.daemon.open_files import raise_file_limit
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.models import reader
from lmx_kernel.models.reader import HeaderReader

BACKENDS = """
import os, time
from pathlib import Path
from attrs import frozen
from lmx_kernel.daemon.open_files import raise_file_limit
from lmx_kernel.errors import ModelUnusableError

@frozen
class Header:
    path: Path
    process: int
    text: str = ""

class Plain:
    def read(self, path):
        return Header(path, os.getpid())

class Refusing(Plain):
    def read(self, path):
        raise ModelUnusableError(f"{path.name}: damaged")

class Crashing(Plain):
    def read(self, path):
        os.abort()

class Failing(Plain):
    def read(self, path):
        return 1 / 0

class Greedy(Plain):
    def read(self, path):
        return bytearray(1 << 40)

class Looping(Plain):
    def read(self, path):
        while True:
            pass

class Wordy(Plain):
    def read(self, path):
        return Header(path, 0, "x" * (2 << 20))

class Broken(Plain):
    def read(self, path):
        return Header(path, 0, "\\ud800")
"""


@pytest.fixture
def backends(tmp_path, monkeypatch):
    """A module of backends that children can import too."""
    (tmp_path / "reader_backends.py").write_text(BACKENDS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("reader_backends")
    del sys.modules["reader_backends"]


@define
class Asked:
    """What the backends say of one path."""

    backends: object
    path: object
    reader: HeaderReader

    def __call__(self, name):
        backend = getattr(self.backends, name)
        return self.reader.read(backend, self.path, self.backends.Header)


@pytest.fixture
def ask(backends, tmp_path):
    asked = Asked(backends, tmp_path / "model", HeaderReader())
    yield asked
    asked.reader.end_idle()


def test_a_child_reads_many_models(ask):
    first, second = ask("Plain"), ask("Plain")
    assert first == second
    assert first.path == ask.path
    assert first.process != os.getpid()


def test_a_refusal_is_the_backends_own(ask):
    process = ask("Plain").process
    with pytest.raises(ModelUnusableError, match=r"^model: damaged$"):
        ask("Refusing")
    assert ask("Plain").process == process


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Crashing", "killed by SIGABRT"),
        ("Failing", "exited with status 1"),
        pytest.param(
            "Greedy",
            "exited with status 1",
            marks=pytest.mark.linux("limits of the address space"),
        ),
        ("Wordy", "say too much"),
        ("Broken", "not Unicode"),
    ],
)
def test_whatever_ends_a_child_ends_nothing_else(ask, name, words):
    with pytest.raises(ModelUnusableError, match=f"model: .*{words}"):
        ask(name)
    assert ask("Plain").path == ask.path


def test_reading_has_an_end(ask, monkeypatch):
    monkeypatch.setattr(reader, "READ_S", 0.5)
    with pytest.raises(ModelUnusableError, match=r"model: .* took too long"):
        ask("Looping")


def test_a_child_is_watched_where_the_system_limits_no_memory(ask, monkeypatch):
    ask("Plain")
    monkeypatch.setattr(reader, "MEMORY_BYTES", 1 << 20)  # less than any interpreter takes
    with pytest.raises(ModelUnusableError, match=r"model: .* took too much memory"):
        ask("Looping")


def test_a_child_is_heard_in_a_daemon_with_many_open_files(ask):
    raise_file_limit(2000)
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert ask("Plain").path == ask.path
    finally:
        for file in files:
            os.close(file)


def test_a_child_that_went_meanwhile_is_replaced(ask):
    process = ask("Plain").process
    [child] = ask.reader._idle
    child.process.kill()
    child.process.wait()
    assert ask("Plain").process != process
