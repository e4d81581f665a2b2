"""`lmx doctor` tells what only a running daemon knows."""

from __future__ import annotations

import pytest
from attrs import frozen

from lmx_kernel.cli import diagnostics
from lmx_kernel.config import Settings
from lmx_kernel.errors import ForbiddenError, UnavailableError

PLUGINS = [
    {"name": "good", "state": "active", "reason": ""},
    {"name": "slow", "state": "degraded", "reason": "lmx_event: ValueError: no"},
    {"name": "bad", "state": "failed", "reason": "its routes clash"},
    {"name": "off", "state": "disabled", "reason": "by the config"},
]
STATUS = {"version": "9", "task_problems": {"rescan": "OSError: gone"}}


@frozen
class Daemon:
    """Answers each path with a value, or raises it."""

    answers: dict

    def get(self, path):
        answer = self.answers[path]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Return what is told of a daemon that answers so: whether each is well, and the texts."""

    def ask(status, plugins=PLUGINS):
        daemon = Daemon({"/health/status": status, "/admin/plugins": {"plugins": plugins}})
        monkeypatch.setattr(diagnostics.Client, "of", lambda _settings: daemon)
        found = diagnostics._daemon(Settings(tmp_path, {}))
        return [(one.is_ok, one.subject, one.text) for one in found]

    return ask


def test_plugins_that_fail_in_it_and_tasks_that_are_down(told):
    assert told(STATUS) == [
        (True, "daemon", "9 runs"),
        (False, "plugin slow", "degraded in the daemon: lmx_event: ValueError: no"),
        (False, "plugin bad", "failed in the daemon: its routes clash"),
        (False, "task rescan", "it failed in the daemon and is tried again: OSError: gone"),
    ]


def test_without_one_there_is_nothing_to_tell(told):
    assert told(UnavailableError("nobody answers")) == []


def test_one_that_cannot_be_asked_is_told(told):
    assert told(ForbiddenError("no")) == [(False, "daemon", "it cannot be asked: no")]
