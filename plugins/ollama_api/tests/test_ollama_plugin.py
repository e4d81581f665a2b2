"""The package as the kernel and its users meet it."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx2
import msgspec
import pytest
from lmx_ollama_api import plugin
from lmx_ollama_api.schema import ChatBody, GenerateBody
from lmx_ollama_api.settings import OllamaSettings

from lmx_kernel.access.door import Door
from lmx_kernel.access.keys import Key
from lmx_kernel.errors import ForbiddenError
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import HttpRequest
from lmx_kernel.testing.stub_kernel import serving


def test_the_section_of_the_config():
    (section,) = plugin.lmx_settings()
    assert (section.name, section.cls()) == ("ollama_api", OllamaSettings(heartbeat_s=10))
    with pytest.raises(ValueError, match="heartbeat_s"):
        OllamaSettings(heartbeat_s=0)


def test_examples_are_lines_for_the_shell(surfaces):
    for surface in surfaces:
        words = shlex.split(surface.example("http://host:1", "it's"))
        assert words[0] == "curl"
        assert f"http://host:1{surface.prefix}" in words[-3]
        assert json.loads(words[-1])["model"]


def test_the_schema_names_what_is_required():
    _, parts = msgspec.json.schema_components([ChatBody, GenerateBody])
    assert parts["ChatBody"]["required"] == ["model"]
    assert parts["GenerateBody"]["required"] == ["model"]


# --- which key may do what ---


@pytest.mark.parametrize(
    ("path", "name", "scope"),
    [
        ("/api/chat", "ollama", "inference"),
        ("/api/blobs/x", "ollama", "inference"),
        ("/api/pull", "ollama_pull", "admin"),
        ("/api/delete", "ollama_delete", "admin"),
        ("/api/pulled", "ollama", "inference"),
    ],
)
def test_changing_the_disk_takes_another_scope(surfaces, path, name, scope):
    surface = SurfaceTable(surfaces).owner(path)
    assert (surface.name, surface.scope) == (name, scope)


def test_a_key_for_inference_may_not_pull_or_delete(surfaces):
    key = Key(name="mine", scopes=("inference",), digest="", created=datetime.now(UTC))
    keys = SimpleNamespace(is_empty=False, find=lambda token: key)
    door = Door(True, keys, SurfaceTable(surfaces).answering, lambda request: None)
    assert door.admit(request("POST", "/api/chat")).key == "mine"
    for method, path in (("POST", "/api/pull"), ("DELETE", "/api/delete")):
        with pytest.raises(ForbiddenError):
            door.admit(request(method, path))


def request(method, path):
    headers = {"authorization": "Bearer x"}
    return HttpRequest(method=method, path=path, headers=headers, client="127.0.0.1")


# --- other dialects below the same path ---


class Neighbour:
    """Has paths of its own below ``/api``."""

    name, prefix, scope = "neighbour", "/api/v1", "inference"

    def routes(self):
        return [("/api/v1/models", self)]

    async def on_get(self, req, resp):
        resp.media = {"neighbour": True}

    def render_error(self, error):
        return {"neighbour_error": error.code}


async def test_another_dialect_may_live_below_the_same_path(surfaces):
    async with serving(*surfaces, Neighbour()) as url, httpx2.AsyncClient(base_url=url) as http:
        assert (await http.get("/api/v1/models")).json() == {"neighbour": True}
        assert (await http.get("/api/v1/nope")).json() == {"neighbour_error": "not_found"}
        assert "error" in (await http.get("/api/v2/nope")).json()
        assert (await http.get("/api/version")).status_code == 200
