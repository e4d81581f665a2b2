"""Coding agents as they are published, against a daemon whose model follows a script.

    python scripts/loopback_only.py python -m pytest tests/agents

They run where there is no network but the loopback interface, with a home of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

CONTEXT = 400_000  # a fake token is a byte


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these where an agent could reach anybody but us."""
    others = psutil.net_if_addrs().keys() - {"lo"}
    if others:
        reason = f"the network has {', '.join(sorted(others))}: see scripts/loopback_only.py"
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the agent works in."""
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture
def play(tmp_path: Path) -> Callable[[FakeModel], AbstractAsyncContextManager[str]]:
    """Return a context manager that serves a model which plays a script."""

    @asynccontextmanager
    async def serve(model: FakeModel) -> AsyncIterator[str]:
        home = tmp_path / "lmx"
        home.mkdir()
        write_fake_models(home, {"player": model})
        plugins = ("lmx_openai_api.plugin", "lmx_anthropic_api.plugin")
        config = write_config(home, plugins, f"[models]\ncontext_length = {CONTEXT}\n")
        async with running_daemon(config) as daemon:
            yield daemon.url

    return serve
