"""One path of two dialects: a header of the request says which of them answers."""

from __future__ import annotations

import attrs
import pytest
from falcon.testing import TestClient

from lmx_kernel.access.door import Door
from lmx_kernel.access.keys import KeyFile, Keyring
from lmx_kernel.errors import ForbiddenError, NotFoundError
from lmx_kernel.http.app import RouteClashError, build_app
from lmx_kernel.http.error_rendering import ErrorRenderer
from lmx_kernel.http.exceptions import FalconError
from lmx_kernel.http.health import Health
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import HttpRequest


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


def app_of(*surfaces):
    health = Health(name="x", version="0", docs="", is_ready=lambda: True, status=dict)
    return build_app(surfaces, health)


def table_of(*surfaces):
    table = SurfaceTable()
    table.replace(app_of(*surfaces).served)
    return table


@pytest.fixture
def client():
    return TestClient(app_of(Plain(), Other()))


@pytest.mark.parametrize(("headers", "by"), [({}, "plain"), ({"X-Other": "1"}, "other")])
def test_the_header_decides(client, headers, by):
    assert client.simulate_get("/v1/things", headers=headers).json["by"] == by
    shown = client.simulate_get("/v1/things/a/b", headers=headers).json
    assert shown == {"by": by, "name": "a/b"}


def test_errors_have_the_shape_of_who_answers():
    renderer = ErrorRenderer(table_of(Plain(), Other()))
    gone = NotFoundError("gone")
    assert b"plain" in renderer.render(gone, "/v1/things/a").body
    assert b"other" in renderer.render(gone, "/v1/things/a", {"x-other": "1"}).body
    assert b"plain" in renderer.render(gone, "/v1/chat", {"x-other": "1"}).body
    assert b"other" in renderer.render(gone, "/v1/messages/count_tokens").body


class Third(Other):
    name, prefix, header, scope = "third", "/third", "x-third", "admin"

    def header_routes(self):
        return [("/v1/other/{any}/more", Says("third"))]


def client_of(*surfaces):
    return TestClient(app_of(*surfaces))


def test_a_path_without_an_owner_is_served_with_the_header():
    """Without another dialect at /v1/models, its clients got a 404 for the list of models."""
    client = client_of(Other(), Third())
    with_header = client.simulate_get("/v1/things", headers={"X-Other": "1"})
    assert with_header.json == {"by": "other", "name": ""}
    assert client.simulate_head("/v1/things", headers={"X-Other": "1"}).status_code == 200
    for headers in ({}, {"X-Other": ""}, {"X-Third": "1"}):
        with pytest.raises(FalconError, match="404"):
            client.simulate_get("/v1/things", headers=headers)


def test_two_dialects_with_one_header_for_a_path_are_both_named():
    class Twin(Other):
        name, prefix = "twin", "/twin"

    with pytest.raises(RouteClashError, match="x-other is a path of both other and twin"):
        client_of(Plain(), Other(), Twin())


def test_a_key_needs_the_scope_of_who_answers(tmp_path):
    keys = KeyFile(tmp_path)
    key = keys.add("bot", ["inference"])
    table = table_of(Plain(), Third())
    door = Door(True, Keyring(keys), table.answering, lambda _request: None)
    headers = {"authorization": f"Bearer {key}"}
    path = "/v1/other/a/more"
    asked = HttpRequest(method="GET", path=path, headers=headers, client="")
    assert door.admit(asked).key == "bot"
    with pytest.raises(ForbiddenError, match="scope admin"):
        door.admit(attrs.evolve(asked, headers={**headers, "x-third": "1"}))


def test_a_dialect_is_asked_once_for_its_routes():
    """A plugin whose methods fail, or answer otherwise, later on changes nothing."""

    class Once(Other):
        asked = 0

        def header_routes(self):
            self.asked += 1
            assert self.asked == 1
            return super().header_routes()

    once = Once()
    assert table_of(Plain(), once).answering("/v1/things", {"x-other": "1"}) is once
