"""One path of two dialects: a header of the request says which of them answers."""

from __future__ import annotations

import pytest
from falcon.testing import TestClient

from lmx_kernel.errors import NotFoundError
from lmx_kernel.http.app import build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.health import Health
from lmx_kernel.http.surface_table import SurfaceTable


class Says:
    def __init__(self, word):
        self.word = word

    async def on_get(self, req, resp, name=""):
        resp.media = {"by": self.word, "name": name}


class Plain:
    name, prefix, scope = "plain", "/v1", ""

    def routes(self):
        return [("/v1/things", Says("plain")), ("/v1/things/{name:path}", Says("plain"))]

    def render_error(self, error):
        return {"plain": error.message}


class Other(Plain):
    name, prefix, header = "other", "/v1/messages", "x-other"

    def routes(self):
        return []

    def header_routes(self):
        return [("/v1/things", Says("other")), ("/v1/things/{id:path}", Says("other"))]

    def render_error(self, error):
        return {"other": error.message}


@pytest.fixture
def client():
    health = Health(name="x", version="0", docs="", is_ready=lambda: True, status=dict)
    return TestClient(build_app([Plain(), Other()], health))


@pytest.mark.parametrize(("headers", "by"), [({}, "plain"), ({"X-Other": "1"}, "other")])
def test_the_header_decides(client, headers, by):
    assert client.simulate_get("/v1/things", headers=headers).json["by"] == by
    shown = client.simulate_get("/v1/things/a/b", headers=headers).json
    assert shown == {"by": by, "name": "a/b"}


def test_errors_have_the_shape_of_who_answers():
    renderer = ErrorRenderer(SurfaceTable([Plain(), Other()]))
    gone = NotFoundError("gone")
    assert b"plain" in renderer.render(gone, "/v1/things/a").body
    assert b"other" in renderer.render(gone, "/v1/things/a", {"x-other": "1"}).body
    assert b"plain" in renderer.render(gone, "/v1/chat", {"x-other": "1"}).body
    assert b"other" in renderer.render(gone, "/v1/messages/count_tokens").body
