"""Whose web pages may talk to the server: FAULTS.md, row 17."""

from __future__ import annotations

import itertools

import pytest

from lmx_kernel.errors import ForbiddenError
from lmx_kernel.http.origin import Origins
from lmx_kernel.http.settings import ServerSettings

LOCAL = ServerSettings()
NAMED = ServerSettings(allowed_hosts=("lmx.lan",), allowed_origins=("https://chat.lan",))
OPEN = ServerSettings(host="0.0.0.0", allowed_origins=("*",))


def is_let_in(settings, host, origin=None):
    headers = {"host": host} | ({"origin": origin} if origin else {})
    try:
        return [name for name, _ in Origins(settings).check(headers)] or True
    except ForbiddenError:
        return False


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1:1234", "[::1]:1234", "LOCALHOST"])
def test_this_machine_is_known_by_all_its_names(host):
    assert is_let_in(LOCAL, host) is True
    assert is_let_in(LOCAL, host, f"http://{host}") is True


@pytest.mark.parametrize("host", ["evil.example:1234", "localhost.evil.example", "", "127.0.0.1.x"])
def test_a_name_that_was_pointed_here_is_not(host):
    assert is_let_in(LOCAL, host) is False
    assert is_let_in(LOCAL, host, f"http://{host}") is False


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "app://x", "chrome-extension://abc", "http://localhost:9999"],
)
def test_pages_of_others_may_not_ask_unless_they_are_named(origin):
    assert is_let_in(LOCAL, "localhost:1234", origin) is False
    named = ServerSettings(allowed_origins=(origin,))
    assert b"access-control-allow-origin" in is_let_in(named, "localhost:1234", origin)
    assert b"access-control-allow-origin" in is_let_in(OPEN, "10.0.0.5:1234", origin)


def test_named_hosts_and_origins_are_let_in_and_no_others():
    assert is_let_in(NAMED, "lmx.lan:1234") is True
    assert is_let_in(NAMED, "other.lan") is False
    assert is_let_in(NAMED, "lmx.lan", "https://chat.lan")
    assert is_let_in(NAMED, "lmx.lan", "https://chat.lan.evil.example") is False


async def test_a_foreign_page_changes_nothing_by_any_method(serve):
    server = await serve()
    for method, path in itertools.product(["GET", "POST", "OPTIONS"], ["/toy/echo", "/health"]):
        reply = await server.http.request(
            method, path, content=b"{}", headers={"origin": "http://evil.example"}
        )
        assert reply.status_code == 403, (method, path)
        assert "access-control-allow-origin" not in reply.headers
    assert (await server.http.get("/health", headers={"host": "evil.example"})).status_code == 403


async def test_a_browser_that_asks_first_is_told(serve):
    server = await serve(allowed_origins=("https://chat.lan",))
    asked = {
        "origin": "https://chat.lan",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    reply = await server.http.request("OPTIONS", "/toy/echo", headers=asked)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == "https://chat.lan"
    assert reply.headers["access-control-allow-headers"] == "authorization, content-type"
    assert "POST" in reply.headers["access-control-allow-methods"]
    reply = await server.http.post("/toy/echo", content=b"{}", headers={"origin": asked["origin"]})
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://chat.lan"
