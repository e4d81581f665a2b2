"""Whatever is sent to whichever operation: the server has an answer, and it is a documented one."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks as conformance

load_all_checks()
CHECKS = [
    not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_headers_conformance,
    conformance.response_schema_conformance,
]
STREAMLESS = conformance.response_schema_conformance


@pytest.fixture(scope="module")
def operations(url: str) -> list[Any]:
    """Every operation that ends by itself."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    return [operation for operation in found if not _is_endless(operation)]


def _is_endless(operation: Any) -> bool:
    """Whether it answers with nothing but a stream."""
    answers = operation.definition.raw["responses"]
    kinds = [set(answer["content"]) for answer in answers.values() if "content" in answer]
    return {"text/event-stream"} in kinds


def _checks(response: Any) -> list[Any]:
    """Return what a response must be. The schema of a stream is of the whole of it, and the library
    would hold each event against that.
    """
    kind = response.headers.get("content-type", [""])[0]
    is_stream = "event-stream" in kind
    return [one for one in CHECKS if not is_stream or one is not STREAMLESS]


def _can_be_wrong(operation: Any) -> bool:
    """Whether there is anything in a request to it that may be wrong."""
    raw = operation.definition.raw
    return any(raw.get(part) for part in ("parameters", "requestBody", "security"))


def fuzz(operation: Any, count: int) -> None:
    """Send ``count`` requests as documented, and ``count`` that are not.

    A model is named that exists in every other one of them, where a body names one.
    """
    with requests.Session() as session:
        for mode in GenerationMode if _can_be_wrong(operation) else [GenerationMode.POSITIVE]:

            @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode), is_known=st.booleans())
            def send(case: Any, is_known: bool) -> None:
                if is_known and isinstance(case.body, dict) and "model" in case.body:
                    case.body["model"] = "m"
                response = case.call(session=session, timeout=30)
                case.validate_response(response, checks=_checks(response))

            send()


@pytest.mark.parametrize(
    "count", [8, pytest.param(300, marks=[pytest.mark.full, pytest.mark.timeout(1800)])]
)
def test_no_request_breaks_an_operation(operations, subtests, count):
    assert {"anthropic", "openai"} <= {operation.tags[0] for operation in operations}
    for operation in operations:
        with subtests.test(operation.label):
            fuzz(operation, count)
