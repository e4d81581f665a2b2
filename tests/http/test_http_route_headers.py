"""What an answer's headers tell of its route."""

from __future__ import annotations

from lmx_kernel.http.route_headers import route_headers
from lmx_kernel.types import Route, Skipped


def told(**fields):
    return dict(route_headers(Route(**{"asked": "auto", "model": "m", **fields})))


def test_who_decided_is_told():
    assert told(router="rules", rule="night")[b"x-lmx-route"] == b"rules/night"
    assert told(router="length")[b"x-lmx-route"] == b"length"
    assert told()[b"x-lmx-route"] == b"by name"


def test_a_header_is_one_short_line_of_ascii_whatever_models_are_called():
    skipped = tuple(Skipped(f"é\r\nx-evil: {n}", "日本" * 50) for n in range(50))
    headers = told(model="a\r\nb\x00é", router="rules", skipped=skipped)
    for value in headers.values():
        assert len(value) <= 512
        assert value.decode("ascii").isprintable()
