"""The package as the kernel and its users meet it."""

import json
import shlex

import msgspec
import pytest
from lmx_responses_api import plugin
from lmx_responses_api.objects import ResponseObject
from lmx_responses_api.schema import ResponseBody
from lmx_responses_api.settings import ResponsesSettings


def test_the_section_of_the_config():
    (section,) = plugin.lmx_settings()
    assert (section.name, section.cls()) == ("responses_api", ResponsesSettings(heartbeat_s=10))
    with pytest.raises(ValueError, match="heartbeat_s"):
        ResponsesSettings(heartbeat_s=0)


def test_the_surface_takes_its_settings_from_the_kernel():
    class Kernel:
        def settings(self, cls):
            return cls(heartbeat_s=3)

    (surface,) = plugin.lmx_api_surfaces(Kernel())
    assert (surface.name, surface.prefix) == ("responses", "/v1/responses")
    routes = dict(surface.routes())
    for operation in surface.operations():
        assert hasattr(routes[operation.path], f"on_{operation.method.lower()}")
    words = shlex.split(surface.example("http://host:1", "it's"))
    assert words[:3] == ["curl", "http://host:1/v1/responses", "-d"]
    assert json.loads(words[3])["model"] == "it's"


def test_the_schema_documents_every_field_and_its_bounds():
    _, parts = msgspec.json.schema_components([ResponseBody, ResponseObject])
    assert parts["ResponseBody"]["required"] == ["model"]
    limit, _ = parts["ResponseBody"]["properties"]["max_output_tokens"]["anyOf"]
    assert limit["minimum"] == 1
    assert len(parts["ResponseObject"]["required"]) == 32


async def test_what_is_answered_is_documented(api):
    """Every field of every event and object has its place in the documented types."""
    api.kernel.play = api.play(
        *api.thoughts("Hm"), *api.texts("So"), *api.call("f", "{}"), *api.call("c", "{}", index=1)
    )
    tools = [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}]
    fields = {"tools": tools, "reasoning": {"summary": "auto"}}
    events = await api.streamed(**fields)
    _, parts = msgspec.json.schema_components([ResponseObject, *_event_types()])

    def check(value, name):
        known = parts[name]["properties"]
        assert value.keys() <= known.keys(), name
        assert set(parts[name]["required"]) <= value.keys(), name

    for event in events:
        check(event, "EventObject")
        if "response" in event:
            check(event["response"], "ResponseObject")
        if "part" in event:
            check(event["part"], "OutputPart")
        for item in [event["item"]] if "item" in event else []:
            check(item, "OutputItem")


def _event_types():
    from lmx_responses_api.objects import EventObject

    return [EventObject]
