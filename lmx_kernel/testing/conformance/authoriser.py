"""What LMX expects of an authoriser."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import ClassVar, cast

import pytest

from lmx_kernel.errors import LmxError
from lmx_kernel.interfaces import HttpRequest
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active

REFUSALS = (401, 403, 429)
CALLS, MOST_S = 1000, 0.001
ROUTES = (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/admin/status"))
ODD = ("", " ", "x" * 65_536, "\x00", "é", "🙂", "null", "0", "*", "a,b", '"', "Bearer ")

Authorise = Callable[..., LmxError | None]


class AuthoriserConformance(PluginConformance):
    """For a plugin with the hook ``lmx_authorize`` that judges by headers.

    :cvar allowed: headers with which a request is let pass; names in lower case.
    """

    allowed: ClassVar[Mapping[str, str]]

    @pytest.fixture
    def authorise(self, plugins: Plugins) -> Authorise:
        """The hook itself, so that a refusal differs from a failure."""
        check_active(plugins, self.module)
        hook = dict(plugins.callers("lmx_authorize", "request")).get(self.module)
        assert hook is not None, "it has no hook lmx_authorize"
        return lambda request: cast("LmxError | None", hook(request))

    def test_it_lets_pass(self, authorise: Authorise, plugins: Plugins) -> None:
        for method, path in ROUTES:
            request = make_request(self.allowed, method, path)
            assert authorise(request) is None
            assert plugins.authorize(request) is None

    def test_it_is_a_plain_function(self) -> None:
        assert not inspect.iscoroutinefunction(self.hook("lmx_authorize"))

    def test_it_refuses_what_lacks_a_header(self, authorise: Authorise) -> None:
        check_refused(authorise, {})
        for name in self.allowed:
            check_refused(
                authorise, {key: self.allowed[key] for key in self.allowed if key != name}
            )

    def test_it_refuses_what_is_nearly_right(self, authorise: Authorise) -> None:
        for name, value in self.allowed.items():
            for wrong in (value + "x", "x" + value, value[:-1], value[1:], value * 2, value + ","):
                check_refused(authorise, {**self.allowed, name: wrong})
            if value.swapcase() != value:
                check_refused(authorise, {**self.allowed, name: value.swapcase()})

    def test_it_refuses_whatever_else_comes(self, authorise: Authorise) -> None:
        for name in self.allowed:
            for odd in ODD:
                check_refused(authorise, {**self.allowed, name: odd})

    def test_other_headers_do_not_matter(self, authorise: Authorise) -> None:
        more = {"user-agent": "curl", "x-forwarded-for": "127.0.0.1", "host": "localhost"}
        assert authorise(make_request({**more, **self.allowed})) is None
        check_refused(authorise, {**more, **dict.fromkeys(("authorization", "cookie"), "x")})

    def test_it_remembers_nothing(self, authorise: Authorise) -> None:
        """A client that was let pass once is refused without its header, and the reverse."""
        for _ in range(3):
            assert authorise(make_request(self.allowed)) is None
            check_refused(authorise, {})
        assert authorise(make_request(self.allowed)) is None

    def test_the_client_and_the_key_do_not_open(self, authorise: Authorise) -> None:
        for client in ("127.0.0.1", "::1", "", "10.0.0.9"):
            for key in ("", "config", "home"):
                check_refused(authorise, {}, client=client, key=key)
                assert authorise(make_request(self.allowed, client=client, key=key)) is None

    def test_a_refusal_gives_nothing_away(self, authorise: Authorise) -> None:
        for name, value in self.allowed.items():
            refusal = check_refused(authorise, {**self.allowed, name: "wrong"})
            assert value not in refusal.message

    def test_it_is_fast(self, authorise: Authorise) -> None:
        """It is called on the event loop, for every request."""
        for headers in (self.allowed, {}):
            request = make_request(headers)
            start_s = time.perf_counter(), time.thread_time()
            for _ in range(CALLS // 100):
                authorise(request)
            waited_s = (time.perf_counter() - start_s[0]) / (CALLS // 100)
            assert waited_s < 10 * MOST_S, f"a call waits for {waited_s * 1000:.0f} ms"
            start = time.thread_time()
            for _ in range(CALLS):
                authorise(request)
            each_s = (time.thread_time() - start) / CALLS
            assert each_s < MOST_S, f"a call takes {each_s * 1000:.1f} ms"


def make_request(
    headers: Mapping[str, str],
    method: str = "POST",
    path: str = "/v1/chat/completions",
    client: str = "10.0.0.9",
    key: str = "",
) -> HttpRequest:
    """Return an HTTP request as an authoriser sees it."""
    return HttpRequest(method=method, path=path, headers=dict(headers), client=client, key=key)


def check_refused(
    authorise: Authorise, headers: Mapping[str, str], client: str = "10.0.0.9", key: str = ""
) -> LmxError:
    """Check that a request is refused on each route, and return the last refusal."""
    refusals: list[LmxError] = []
    for method, path in ROUTES:
        request = make_request(headers, method, path, client, key)
        refusal = authorise(request)
        assert refusal is not None, f"{method} {path} passes with {str(headers)[:80]}"
        assert isinstance(refusal, LmxError), f"a refusal is an LmxError, not {type(refusal)}"
        assert refusal.status in REFUSALS, refusal.status
        assert refusal.message.strip(), "a refusal says why"
        refusals.append(refusal)
    return refusals[-1]
