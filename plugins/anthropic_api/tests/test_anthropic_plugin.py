"""The package as the kernel and its users meet it."""

import json
import shlex

import msgspec
import pytest
from lmx_anthropic_api import plugin
from lmx_anthropic_api.objects import MessageObject, StreamEvent
from lmx_anthropic_api.schema import CountBody, MessagesBody
from lmx_anthropic_api.settings import AnthropicSettings
from lmx_anthropic_api.surface import AnthropicSurface

from lmx_kernel.interfaces import HeaderRouted


class Kernel:
    def settings(self, cls):
        return cls(heartbeat_s=3)


def test_the_section_of_the_config():
    (section,) = plugin.lmx_settings()
    assert (section.name, section.cls()) == ("anthropic_api", AnthropicSettings(heartbeat_s=10))
    with pytest.raises(ValueError, match="heartbeat_s"):
        AnthropicSettings(heartbeat_s=0)


def test_the_surface():
    (surface,) = plugin.lmx_api_surfaces(Kernel())
    assert (surface.name, surface.prefix) == ("anthropic", "/v1/messages")
    assert isinstance(surface, HeaderRouted)
    documented = {operation.path for operation in surface.operations()}
    assert documented == {path for path, _ in (*surface.routes(), *surface.header_routes())}
    with_header = {one.path for one in surface.operations() if one.header == surface.header}
    assert with_header == {path for path, _ in surface.header_routes()}


def test_the_example_is_a_line_for_the_shell():
    surface = AnthropicSurface(Kernel(), AnthropicSettings())
    words = shlex.split(surface.example("http://host:1", "it's"))
    assert words[:3] == ["curl", "http://host:1/v1/messages", "-d"]
    assert json.loads(words[3])["model"] == "it's"


def test_the_schema_documents_every_field():
    _, parts = msgspec.json.schema_components([MessagesBody, CountBody, MessageObject, StreamEvent])
    assert parts["MessagesBody"]["required"] == ["model", "messages", "max_tokens"]
    assert parts["CountBody"]["required"] == ["model", "messages"]
