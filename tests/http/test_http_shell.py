"""Health, the door, ids, paths, and the line in the log."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from lmx_kernel.access.door import WrongKeyError
from lmx_kernel.errors import UnauthorizedError

GET = b"GET /toy/echo HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("path", ["/", "/health", "/health/live", "/health/ready", "/health/"])
async def test_health_needs_no_key(serve, path):
    running = await serve()
    running.refusal = UnauthorizedError("No key.")
    answer = await running.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    head = await running.http.head(path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health/status"),
        ("GET", "/toy/echo"),
        ("POST", "/toy/echo"),
        ("GET", "/nowhere"),
        ("OPTIONS", "/toy/echo"),
        ("POST", "/health"),
        ("GET", "/health//status"),
        ("GET", "/%2fhealth/status"),
    ],
)
async def test_everything_else_does(serve, method, path):
    running = await serve()
    running.refusal = UnauthorizedError("No key.")
    assert (await running.http.request(method, path)).status_code == 401


async def test_the_door_fails_closed(serve):
    running = await serve()
    running.refusal = ZeroDivisionError("secret")
    with structlog.testing.capture_logs() as logs:
        answer = await running.http.get("/toy/echo")
    assert answer.status_code == 403
    assert "secret" not in answer.text
    assert any(line["event"] == "authorize failed" for line in logs)


async def test_a_wrong_key_waits_for_its_answer_and_holds_up_nobody(serve, monkeypatch):
    over, pauses = asyncio.Event(), asyncio.Queue()

    async def pause(seconds):
        pauses.put_nowait(seconds)
        await over.wait()

    monkeypatch.setattr("lmx_kernel.http.shell.sleep", pause)
    running = await serve()
    running.refusal = WrongKeyError(3.0)
    guess = asyncio.ensure_future(running.http.get("/toy/echo"))
    assert await pauses.get() == 3.0
    running.refusal = None
    assert (await running.http.get("/toy/echo")).status_code == 200
    assert not guess.done()
    over.set()
    assert (await guess).status_code == 401


@pytest.mark.parametrize("path", ["/toy/echo", "/health/status", "/toy/flood", "/toy/slow"])
async def test_head_is_answered_wherever_get_is(serve, path):
    running = await serve()
    client = await running.connect(b"HEAD " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    client.send(GET + b"\r\n")  # on the same connection: there was no body, and no stream began
    assert (await client.answer()).body == b'{"ok":true}'
    assert running.toy.flood.sent_bytes == 0


async def test_head_says_the_length_and_the_type_that_get_has(serve):
    running = await serve()
    head, answer = await running.http.head("/toy/echo"), await running.http.get("/toy/echo")
    for name in ("content-length", "content-type"):
        assert head.headers[name] == answer.headers[name]


async def test_head_is_refused_where_there_is_no_get(serve):
    running = await serve()
    assert (await running.http.head("/toy/fail/lmx")).status_code == 405


async def test_a_refused_body_is_not_awaited(serve):
    running = await serve()
    running.refusal = UnauthorizedError("No key.")
    client = await running.connect(
        b"POST /toy/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    )
    assert (await client.answer()).status == 401


async def test_status_with_a_key(serve):
    running = await serve()
    assert (await running.http.get("/health/status")).json() == {"models": 0}


async def test_not_ready(serve):
    running = await serve()
    running.is_ready = False
    answer = await running.http.get("/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "not_ready"})
    assert (await running.http.get("/health/live")).status_code == 200


@pytest.mark.parametrize("path", ["/toy/echo", "//toy//echo", "/toy/echo/", "///toy/echo//"])
async def test_slashes_do_not_matter(serve, path):
    running = await serve()
    client = await running.connect(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await client.answer()).body == b'{"ok":true}'


async def test_an_id_is_kept_or_made(serve):
    running = await serve()
    for offered, is_kept in [("abc-1.2_3", True), ("", False), ("a b", False), ("x" * 200, False)]:
        answer = await running.http.post(
            "/toy/echo", content=b"{}", headers={"x-request-id": offered}
        )
        shown = answer.headers["x-request-id"]
        assert (shown == offered) == is_kept
        assert answer.headers["request-id"] == shown
        assert answer.json()["id"] == shown


async def test_one_line_for_a_request(serve):
    running = await serve()
    running.key = "bot"
    with structlog.testing.capture_logs() as logs:
        answer = await running.http.post("/toy/echo?key=secret", content=b"secret")
    (line,) = logs
    assert line.pop("ms") > 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": answer.headers["x-request-id"],
        "method": "POST",
        "path": "/toy/echo",
        "status": 200,
        "bytes": len(answer.content),
        "cause": None,
        "key": "bot",
    }


async def test_the_log_cannot_be_forged(serve):
    running = await serve()
    with structlog.testing.capture_logs() as logs:
        await running.http.get("/toy/%0a%1b[31mforged")
    assert logs[0]["path"] == "/toy/\\n\\x1b[31mforged"
    assert logs[0]["cause"] == "not_found"


async def test_no_header_tells_the_software(serve):
    running = await serve()
    answer = await running.http.get("/")
    assert "server" not in answer.headers
    assert answer.headers["date"]


async def test_connections_are_kept(serve):
    running = await serve()
    client = await running.connect()
    for _ in range(5):
        client.send(GET + b"\r\n")
        assert (await client.answer()).status == 200
