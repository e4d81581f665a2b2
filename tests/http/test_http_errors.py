"""Every error has a shape, an id and a verdict on retrying."""

from __future__ import annotations

import json

import falcon
import pytest
import structlog

from lmx_kernel.errors import (
    InternalError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
    UnavailableError,
)
from lmx_kernel.http.app import RouteClashError, build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.exceptions import FalconError, to_lmx_error
from lmx_kernel.http.surface_table import SurfaceTable


@pytest.mark.parametrize(
    ("kind", "status", "code", "retry"),
    [
        ("recursion", 400, "invalid_request", "false"),
        ("bug", 500, "internal_error", "false"),
        ("busy", 429, "queue_full", "true"),
        ("lmx", 400, "invalid_request", "false"),
        ("media", 415, "unsupported_media_type", "false"),
    ],
)
async def test_handler_errors_in_the_shape_of_the_surface(serve, kind, status, code, retry):
    running = await serve()
    answer = await running.http.post(f"/toy/fail/{kind}", content=b"{}")
    assert answer.status_code == status
    assert answer.json()["toy_error"] == code
    assert answer.headers["x-should-retry"] == retry
    assert answer.headers["x-request-id"] == answer.headers["request-id"]
    assert "secret" not in answer.text


async def test_a_bug_is_logged_with_its_traceback(serve):
    running = await serve()
    with structlog.testing.capture_logs() as logs:
        await running.http.post("/toy/fail/bug", content=b"{}")
    (failure,) = [line for line in logs if line["log_level"] == "error"]
    assert isinstance(failure["exc_info"], ZeroDivisionError)


async def test_retry_after_is_clamped(serve):
    running = await serve()
    answer = await running.http.post("/toy/fail/busy", content=b"{}")
    assert answer.headers["retry-after"] == "60"


async def test_unknown_path_outside_all_surfaces_is_neutral(serve):
    running = await serve()
    answer = await running.http.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "No such path.",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_found",
    }


async def test_unknown_path_of_a_surface(serve):
    running = await serve()
    answer = await running.http.get("/toy/nowhere")
    assert (answer.status_code, answer.json()["toy_error"]) == (404, "not_found")


async def test_wrong_method_says_which_are_right(serve):
    running = await serve()
    answer = await running.http.delete("/toy/echo")
    assert (answer.status_code, answer.json()["toy_error"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}


async def test_options(serve):
    running = await serve()
    answer = await running.http.options("/toy/echo")
    assert answer.status_code == 200
    assert "POST" in answer.headers["allow"]


async def test_odd_method_is_the_clients_fault(serve):
    running = await serve()
    answer = await running.http.request("PROPFIND", "/toy/echo")
    assert answer.status_code in (400, 405)
    assert "toy_error" in answer.json()


async def test_a_head_request_gets_no_error_body(serve):
    running = await serve()
    client = await running.connect(b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b" 404 " in head
    client.send(b"GET /toy/echo HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await client.answer()).body == b'{"ok":true}'


async def test_a_stream_that_fails_never_looks_whole(serve):
    running = await serve()
    client = await running.connect(
        b"POST /toy/fail/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    )
    received = await client.rest()
    assert b"first" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert b"secret" not in received


class Surface:
    def __init__(self, name, prefix, *templates):
        self.name, self.prefix, self.templates = name, prefix, templates

    def routes(self):
        return [(template, self) for template in self.templates]

    def render_error(self, error):
        return {"by": self.name}

    async def on_get(self, req, resp, **_params):
        pass


def _rendered(renderer, error, path):
    return json.loads(renderer.render(error, path).body)


def test_the_longest_prefix_renders():
    renderer = ErrorRenderer(
        SurfaceTable([Surface("a", "/v1"), Surface("b", "/v1/deep"), Surface("c", "/v")])
    )
    error = NotFoundError("No.")
    assert _rendered(renderer, error, "/v1/x") == {"by": "a"}
    assert _rendered(renderer, error, "/v1/deep") == {"by": "b"}
    assert _rendered(renderer, error, "/v1/deeper") == {"by": "a"}
    assert "error" in _rendered(renderer, error, "/v2")


def test_a_renderer_that_fails_still_tells_the_client():
    surface = Surface("a", "/a")
    surface.render_error = lambda error: 1 / 0
    assert _rendered(ErrorRenderer(SurfaceTable([surface])), NotFoundError("No."), "/a")["error"][
        "code"
    ]


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (UnavailableError("x", retry_after_s=7), b"7"),
        (UnavailableError("x", retry_after_s=0), b"1"),
        (QueueFullError("x"), b"1"),
        (InvalidRequestError("x"), None),
    ],
)
def test_retry_after(error, header):
    assert (
        dict(ErrorRenderer(SurfaceTable()).render(error, "").headers).get(b"retry-after") == header
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (falcon.HTTPUnauthorized(), 401),
        (falcon.HTTPNotAcceptable(), 400),
        (falcon.HTTPServiceUnavailable(retry_after=9), 503),
        (falcon.HTTPInsufficientStorage(), 500),
        (falcon.MediaMalformedError("JSON"), 400),
    ],
)
def test_errors_of_falcon(error, status):
    fault = to_lmx_error(FalconError(error), "id")
    assert fault.error.status == status
    assert fault.error.message
    assert "Retry-After" not in fault.headers  # the renderer's


def test_an_unknown_exception_tells_nothing():
    with structlog.testing.capture_logs():
        error = to_lmx_error(KeyError("secret"), "id").error
    assert isinstance(error, InternalError)
    assert "secret" not in error.message


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("/a/{x}", "/a/{y}"),
        ("/a", "/a/"),
        ("/a/{x}/b", "/a/{y}/c"),
        ("/a", "/health"),
    ],
)
def test_a_clash_of_routes_names_both(health, one, two):
    with pytest.raises(RouteClashError) as caught:
        build_app([Surface("first", "/a", one), Surface("second", "/b", two)], health)
    assert "second" in str(caught.value)
    assert ("health" if two == "/health" else "first") in str(caught.value)


@pytest.mark.parametrize("second", ["/a", "/a/"])
def test_two_dialects_with_one_prefix_are_both_named(health, second):
    """Or the keys and the errors of one would be those of the other's paths."""
    surfaces = [Surface("first", "/a", "/a/x"), Surface("second", second, "/a/y")]
    with pytest.raises(RouteClashError, match="prefix of both first and second"):
        build_app(surfaces, health)
    build_app([surfaces[0], Surface("second", "/a/b", "/a/b/y")], health)  # they may nest
