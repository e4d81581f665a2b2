"""The internals of uvicorn that the server builds on: another version may well lack one of them."""

from __future__ import annotations

import asyncio
from importlib.metadata import requires, version
from unittest.mock import Mock

import pytest
from packaging.requirements import Requirement
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

OVERRIDDEN = [
    *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
    *("on_message_begin", "on_headers_complete", "on_body", "on_message_complete"),
    *("on_response_complete", "shutdown", "timeout_keep_alive_handler"),
]
USED = {
    "the connection": [
        *("connections", "cycle", "flow", "headers", "loop", "parser", "scope", "transport", "url"),
        "_unset_keepalive_if_required",
    ],
    "the cycle": ["disconnected", "keep_alive", "response_complete"],
    "the flow control": ["pause_reading", "resume_reading"],
    "the server state": ["connections", "tasks", "default_headers"],
}


@pytest.fixture
async def parts():
    """Return uvicorn's objects while it handles a request."""

    async def app(scope, receive, send):
        await asyncio.Event().wait()

    state = ServerState()
    connection = HttpToolsProtocol(
        config=Config(app, interface="asgi3", lifespan="off", log_config=None),
        server_state=state,
        app_state={},
    )
    transport = Mock(spec=asyncio.Transport)
    transport.get_extra_info.return_value = None
    connection.connection_made(transport)
    connection.data_received(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    yield {
        "the connection": connection,
        "the cycle": connection.cycle,
        "the flow control": connection.flow,
        "the server state": state,
    }
    for task in state.tasks:
        task.cancel()


@pytest.mark.parametrize("part", USED)
async def test_what_is_used_of_uvicorn_is_there(parts, part):
    missing = [name for name in USED[part] if not hasattr(parts[part], name)]
    assert not missing, f"uvicorn {version('uvicorn')}: {part} has no {', '.join(missing)}"


def test_what_is_overridden_in_uvicorn_is_called_there():
    missing = [name for name in OVERRIDDEN if not hasattr(HttpToolsProtocol, name)]
    assert not missing, f"uvicorn {version('uvicorn')} has no {', '.join(missing)}"


async def test_a_request_is_handed_on_as_the_server_expects(parts):
    connection = parts["the connection"]
    assert connection.cycle.scope is connection.scope
    assert connection.scope["state"] == {}
    assert connection.headers == [(b"host", b"x")]
    assert connection in parts["the server state"].connections


def test_no_version_is_allowed_that_was_not_tested():
    allowed = next(
        requirement.specifier
        for requirement in map(Requirement, requires("lmx-kernel"))
        if requirement.name == "uvicorn"
    )
    tested = version("uvicorn")
    major, minor, *_ = map(int, tested.split("."))
    assert allowed.contains(tested)
    assert not allowed.contains(f"{major}.{minor + 1}.0")
