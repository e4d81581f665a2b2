"""What all tests share: those that need one system say so, and why."""

from __future__ import annotations

import sys

import pytest

SYSTEMS = {"linux": "linux", "macos": "darwin"}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs another system; the reason is the marker's argument."""
    for name, platform in SYSTEMS.items():
        for mark in item.iter_markers(name):
            if sys.platform != platform:
                pytest.skip(f"needs {name}: {mark.args[0]}")
