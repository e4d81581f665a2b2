"""Coding agents as they are published, against a daemon whose model follows a script.

    python scripts/loopback_only.py python -m pytest tests/agents

The test modules import ``agent_run`` from this folder.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

sys.path.append(str(Path(__file__).parent))

CONTEXT = 400_000  # a fake token is a byte


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
        plugins = ("lmx_openai_api.plugin", "lmx_anthropic_api.plugin", "lmx_responses_api.plugin")
        config = write_config(home, plugins, f"[models]\ncontext_length = {CONTEXT}\n")
        async with running_daemon(config) as daemon:
            yield daemon.url

    return serve
