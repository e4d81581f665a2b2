"""The package as the kernel and its users meet it."""

import json
import shlex

import msgspec
import pytest
from lmx_openai_api import plugin
from lmx_openai_api.schema import ChatBody, CompletionBody
from lmx_openai_api.settings import OpenAISettings

MODEL = "acme/Tiny-1B"


def test_the_section_of_the_config():
    (section,) = plugin.lmx_settings()
    assert (section.name, section.cls()) == ("openai_api", OpenAISettings(heartbeat_s=10))
    with pytest.raises(ValueError, match="heartbeat_s"):
        OpenAISettings(heartbeat_s=0)


def test_the_surface_takes_its_settings_from_the_kernel():
    class Kernel:
        def settings(self, cls):
            return cls(heartbeat_s=3)

    (surface,) = plugin.lmx_api_surfaces(Kernel())
    assert (surface.name, surface.prefix) == ("openai", "/v1")
    assert all(path.startswith("/v1/") for path, _ in surface.routes())


def test_the_example_is_a_line_for_the_shell(surface):
    words = shlex.split(surface.example("http://host:1", "it's"))
    assert words[:3] == ["curl", "http://host:1/v1/chat/completions", "-d"]
    assert json.loads(words[3])["model"] == "it's"


def test_the_schema_documents_every_field_and_its_bounds():
    _, parts = msgspec.json.schema_components([ChatBody, CompletionBody])
    assert parts["ChatBody"]["required"] == ["model", "messages"]
    assert parts["CompletionBody"]["required"] == ["model", "prompt"]
    n, _ = parts["ChatBody"]["properties"]["n"]["anyOf"]
    assert (n["minimum"], n["maximum"]) == (1, 16)


async def test_models_that_can_be_loaded_are_listed(api):
    (model,) = (await api.sdk.models.list()).data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "acme")
    assert 0 < model.created < 2**32


async def test_a_model_is_found_by_an_id_with_a_slash(api):
    assert (await api.sdk.models.retrieve("ACME/tiny-1b")).id == MODEL
    assert (await api.http.get("/v1/models/nope/nope")).json()["error"]["param"] == "model"


async def test_a_broken_model_says_what_is_wrong_with_it(api):
    answer = await api.http.get("/v1/models/broken")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "its file is cut off"
