"""One server for all clients."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Before the clients are imported: they neither ask the network for news nor write to the home.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "any"}

import pytest
from contract_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A daemon with the fake models and the demo model."""
    server = Server(tmp_path_factory.mktemp("home"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def base_url(server: Server) -> str:
    """What clients are given."""
    return f"{server.url}/v1"
