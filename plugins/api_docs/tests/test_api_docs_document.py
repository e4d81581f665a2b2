"""The document says all there is, and what it says holds."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Annotated, TypedDict

import falcon.asgi
import falcon.routing
import falcon.testing
import httpx2
import pytest
from attrs import frozen
from lmx_api_docs.document import build
from lmx_api_docs.operation import plain_path
from lmx_api_docs.surfaces import Document
from msgspec import Meta
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from lmx_kernel.interfaces import Operation


@frozen(kw_only=True)
class Wish:
    """What is wanted, see :class:`Toy`.

    :ivar colour: any, in
        ``words``.
    """

    colour: str
    size: Annotated[int, Meta(ge=1)] = 1


@frozen(kw_only=True)
class Filter:
    """Which toys to list.

    :param kind: of the toys.
    """

    kind: str
    limit: int = 10


class Gift(TypedDict):
    """A toy."""

    name: str


class Toy:
    """Toys, by their names."""

    name, prefix, scope = "toy", "/toys", "play"

    def operations(self):
        return [
            Operation(method="GET", path="/toys", summary="List", query=Filter, result=list[Gift]),
            Operation(method="PUT", path="/toys", summary="Mend", result=list[Gift], accepted=Gift),
            Operation(
                method="POST", path="/toys", summary="Make", body=Wish, result=Gift, status=202
            ),
            Operation(method="DELETE", path="/toys/{number:int}", summary="Lose", status=204),
            Operation(
                method="GET",
                path="/toys/{name:path}/moves",
                summary="Watch",
                streams=True,
                event=Gift,
            ),
        ]

    def render_error(self, error):
        return {"toy_error": error.code, "field": error.param}


@pytest.fixture(scope="module")
def toys():
    document = build([Toy()])
    validate(document, cls=OpenAPIV31SpecValidator)
    return document


def test_the_public_validator_takes_it(document):
    validate(document, cls=OpenAPIV31SpecValidator)
    assert document["openapi"].startswith("3.1.")


def test_every_route_of_every_surface_is_in_it_and_nothing_else(surfaces, document):
    routed = {
        (method.lower(), plain_path(template), surface.name)
        for surface in surfaces
        for template, resource in (*surface.routes(), *getattr(surface, "header_routes", list)())
        for method in falcon.routing.map_http_methods(resource)
        if method != "HEAD"  # is a GET
    }
    documented = {
        (method, path, tag)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for tag in operation["tags"]
    }
    # No template has anything after a part with slashes, so a resource looks at its end itself.
    roots = {path for _, path, _ in routed if path.endswith("}")}
    told = {
        (method, next((root for root in roots if path.startswith(f"{root}/")), path), tag)
        for method, path, tag in documented
        if (method, path, tag) not in routed
    }
    assert told | (documented & routed) == routed
    assert {"anthropic", "openai", "docs", "openapi"} <= {tag["name"] for tag in document["tags"]}


def test_operations_have_names_of_their_own(document):
    names = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    assert len(set(names)) == len(names)
    assert "post_v1_chat_completions" in names


def test_a_path_of_two_dialects_tells_of_both(document):
    shown = document["paths"]["/v1/models"]["get"]
    assert shown["tags"] == ["openai", "anthropic"]
    (header,) = [each for each in shown["parameters"] if each["in"] == "header"]
    assert (header["name"], header["required"]) == ("anthropic-version", False)
    answers = shown["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert len(answers) == 2


def test_a_path_that_needs_a_header_says_so():
    own = Operation(method="GET", path="/its", summary="", result=Gift, header="x-toy")
    toy = SimpleNamespace(
        name="toy", scope="", operations=lambda: [own], render_error=Toy().render_error
    )
    (header,) = build([toy])["paths"]["/its"]["get"]["parameters"]
    assert (header["name"], header["in"], header["required"]) == ("x-toy", "header", True)


def test_a_body_is_what_its_class_says(toys):
    post = toys["paths"]["/toys"]["post"]
    assert post["requestBody"]["required"]
    schema = toys["components"]["schemas"]["Wish"]
    assert schema["description"] == "What is wanted, see `Toy`."
    assert schema["required"] == ["colour"]
    assert schema["properties"]["colour"]["description"] == "any, in `words`."
    assert schema["properties"]["size"]["minimum"] == 1
    assert post["responses"]["202"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "/Gift"
    )


def test_a_query_becomes_parameters(toys):
    kind, limit = toys["paths"]["/toys"]["get"]["parameters"]
    assert (kind["name"], kind["in"], kind["required"]) == ("kind", "query", True)
    assert kind["schema"]["description"] == "of the toys."
    assert (limit["required"], limit["schema"]["default"]) == (False, 10)
    assert "Filter" not in toys["components"]["schemas"]


def test_fields_of_a_path_are_parameters(toys):
    (number,) = toys["paths"]["/toys/{number}"]["delete"]["parameters"]
    assert (number["in"], number["schema"]) == ("path", {"type": "integer"})
    assert "content" not in toys["paths"]["/toys/{number}"]["delete"]["responses"]["204"]
    (name,) = toys["paths"]["/toys/{name}/moves"]["get"]["parameters"]
    assert (name["name"], name["schema"]["type"]) == ("name", "string")


def test_a_stream_tells_what_its_events_carry(toys):
    answer = toys["paths"]["/toys/{name}/moves"]["get"]["responses"]["200"]
    items = answer["content"]["text/event-stream"]["schema"]["contentSchema"]["items"]
    names = [schema["$ref"].rpartition("/")[2] for schema in items["anyOf"]]
    assert names == ["Gift", "toy_error"]


def test_a_stream_of_lines_has_its_own_type():
    line = Operation(
        method="GET", path="/toys", summary="", streams=True, event=Gift, stream_type="text/lines"
    )
    toy = SimpleNamespace(
        name="toy", scope="", operations=lambda: [line], render_error=Toy().render_error
    )
    (content,) = build([toy])["paths"]["/toys"]["get"]["responses"]["200"]["content"].items()
    assert (content[0], content[1]["schema"]["contentMediaType"]) == ("text/lines", "text/lines")


def test_an_answer_may_come_before_the_work_is_done(toys):
    done, accepted = (toys["paths"]["/toys"]["put"]["responses"][each] for each in ("200", "202"))
    assert done["content"]["application/json"]["schema"]["type"] == "array"
    assert accepted["content"]["application/json"]["schema"]["$ref"].endswith("/Gift")


def test_a_key_must_be_good_for_the_surface(toys, document):
    assert toys["paths"]["/toys"]["get"]["security"] == [{"key": ["play"]}]
    assert document["paths"]["/openapi.json"]["get"]["security"] == [{"key": []}]


def test_errors_are_as_the_surface_renders_them(toys):
    assert toys["components"]["schemas"]["toy_error"] == {
        "type": "object",
        "properties": {"toy_error": {"type": ["string"]}, "field": {"type": ["null", "string"]}},
        "required": ["toy_error", "field"],
    }
    refusal = toys["components"]["responses"]["toy_4XX"]
    assert "429: `queue_full`" in refusal["description"]
    assert set(refusal["headers"]) == {"x-request-id", "x-should-retry", "retry-after"}


def test_it_follows_the_surfaces_that_are_served():
    kernel = SimpleNamespace(surfaces=[])
    app = falcon.asgi.App()
    app.add_route("/it", Document(kernel))
    client = falcon.testing.TestClient(app)
    assert client.simulate_get("/it").json["paths"] == {}
    kernel.surfaces = [Toy()]
    assert "/toys" in client.simulate_get("/it").json["paths"]


async def test_a_client_that_has_it_is_told_so(http: httpx2.AsyncClient):
    first = await http.get("/openapi.json")
    again = await http.get("/openapi.json", headers={"if-none-match": first.headers["etag"]})
    other = await http.get("/openapi.json", headers={"if-none-match": '"other"'})
    assert (again.status_code, again.content) == (304, b"")
    assert other.content == first.content


async def test_a_part_that_is_not_there_is_an_error_of_this_surface(http: httpx2.AsyncClient):
    answer = await http.get("/docs/nope.js")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_daemon_does_not_load_what_it_only_sends():
    code = "import sys; from lmx_api_docs.surfaces import PageSurface; PageSurface().routes(); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('offapi' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_surface_that_cannot_be_described_is_left_out_and_named():
    class Broken:
        name, prefix, scope = "broken", "/broken", ""

        def operations(self):
            raise RuntimeError("forgot them")

        def render_error(self, error):
            return {}

    class Fine(Broken):
        name, prefix = "fine", "/fine"

        def operations(self):
            return [Operation(method="GET", path="/fine", summary="All is well", result=str)]

    document = build([Broken(), Fine()])
    assert list(document["paths"]) == ["/fine"]
    assert (
        "`broken`, since it failed (RuntimeError: forgot them)" in document["info"]["description"]
    )
