"""What LMX expects of an API surface, over a kernel that answers as the tests script it."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

import httpx2 as httpx
import msgspec
import pytest

from lmx_kernel.errors import (
    ContextOverflowError,
    LmxError,
)
from lmx_kernel.interfaces import ApiSurface, HeaderRouted
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active, check_name
from lmx_kernel.testing.conformance.surface_scenes import (
    FAILURE,
    NAMES,
    SCENES,
    WAIT_S,
    Ask,
    Parts,
    check_has,
    check_shape,
    client_of,
    every_error,
    fail_midway,
    is_error,
    name_in,
    opened,
    plain,
    send,
    texts_in,
)
from lmx_kernel.testing.stub_kernel import MODEL, StubKernel, serving

DEEP = 100_000
BAD_BODIES = (b"", b"{", b"[1]", b"null", b"\xff\xfe", b'"text"', b"[" * DEEP, b'{"a":' * DEEP)
ODD_VALUES: tuple[Any, ...] = (None, -1, 1.5, "", "x", [], {}, [[]], True, 10**30, {"a": {}})
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class SurfaceChecks(PluginConformance):
    """What the tests of a surface need. The author's class derives from
    :class:`SurfaceConformance`.

    :cvar statuses: where this dialect has another HTTP status for an error, by the error's code.
    :cvar own_words: the codes of errors for which its clients expect a sentence of the dialect.
    :cvar beside: paths outside of the prefix, where clients look for them.
    """

    statuses: ClassVar[Mapping[str, int]] = {}
    own_words: ClassVar[frozenset[str]] = frozenset()
    beside: ClassVar[frozenset[str]] = frozenset()

    def asks(self, text: str) -> Sequence[Ask]:
        """Return requests to :data:`~lmx_kernel.testing.stub_kernel.MODEL` that have ``text`` in
        their prompt: one of each kind, whole and as a stream. Empty for a surface that asks no
        model.
        """
        raise NotImplementedError

    @pytest.fixture
    def kernel(self) -> StubKernel:
        """The kernel that the surface calls."""
        return StubKernel()

    @pytest.fixture
    def surfaces(self, plugins: Plugins, kernel: StubKernel) -> Sequence[ApiSurface]:
        """The surfaces of the plugin."""
        surfaces = plugins.api_surfaces(kernel)  # type: ignore[arg-type]
        check_active(plugins, self.module)
        found = self.own(plugins, "lmx_api_surfaces", surfaces)
        assert found, "lmx_api_surfaces returns nothing"
        return found

    @pytest.fixture
    async def http(self, surfaces: Sequence[ApiSurface]) -> AsyncIterator[httpx.AsyncClient]:
        """A client of a server with these surfaces."""
        async with serving(*surfaces) as url, client_of(url) as http:
            yield http

    def _with_bodies(self) -> list[Ask]:
        return [ask for ask in self.asks("hi") if ask.body is not None]

    def _check_error(
        self, response: httpx.Response, error: LmxError, surfaces: Sequence[ApiSurface]
    ) -> None:
        expected = self.statuses.get(error.code, error.status)
        assert response.status_code == expected, (error.code, response.text)
        assert error.code in self.own_words or error.message in plain(response.text)
        check_shape(response, surfaces)


class SurfaceConformance(SurfaceChecks):
    """For a plugin with the hook ``lmx_api_surfaces``."""

    # --- what it is

    def test_it_says_what_it_is(self, surfaces: Sequence[ApiSurface]) -> None:
        for surface in surfaces:
            check_name(surface.name)
            assert surface.prefix.startswith("/")
            assert not surface.prefix.endswith("/")
            assert isinstance(surface.scope, str)
            for path, _ in surface.routes():
                is_below = f"{path}/".startswith(f"{surface.prefix}/")
                assert is_below or path in self.beside, f"{path} is not below {surface.prefix}"

    def test_what_it_serves_is_documented(self, surfaces: Sequence[ApiSurface]) -> None:
        for surface in surfaces:
            routes = list(surface.routes())
            assert len(routes) == len({path for path, _ in routes})
            if isinstance(surface, HeaderRouted):
                routes += surface.header_routes()
            served = {
                (method, path)
                for path, resource in routes
                for method in METHODS
                if hasattr(resource, f"on_{method.lower()}")
            }
            operations = list(surface.operations())
            documented = {(one.method, one.path) for one in operations}
            assert documented == served
            for one in operations:
                assert one.summary.strip()
                assert one.body is None or one.method != "GET"

    def test_its_types_can_be_described(self, surfaces: Sequence[ApiSurface]) -> None:
        """As the page with the documentation does."""
        for surface in surfaces:
            for one in surface.operations():
                types = [one.body, one.query, one.result, one.accepted, one.event]
                found = [kind for kind in types if kind is not None]
                schemas, _ = msgspec.json.schema_components(found)
                assert len(schemas) == len(found)

    # --- errors

    def test_every_error_is_rendered(self, surfaces: Sequence[ApiSurface]) -> None:
        for surface in surfaces:
            for error in every_error():
                body = msgspec.json.decode(msgspec.json.encode(surface.render_error(error)))
                assert isinstance(body, dict)
                assert error.message in texts_in(body)

    async def test_a_refusal_keeps_its_status(
        self, http: httpx.AsyncClient, kernel: StubKernel, surfaces: Sequence[ApiSurface]
    ) -> None:
        for ask in self.asks("hi"):
            for error in every_error():
                kernel.refusal = error
                self._check_error(await send(http, ask), error, surfaces)

    async def test_so_does_one_that_comes_with_the_first_event(
        self, http: httpx.AsyncClient, kernel: StubKernel, surfaces: Sequence[ApiSurface]
    ) -> None:
        error = ContextOverflowError("9 tokens do not fit", figures={"tokens": 9, "limit": 8})
        kernel.play = lambda answer: answer.end(error.code, error)
        for ask in self.asks("hi"):
            self._check_error(await send(http, ask), error, surfaces)

    async def test_an_unknown_model_is_refused(
        self, http: httpx.AsyncClient, surfaces: Sequence[ApiSurface]
    ) -> None:
        for ask in self.asks("hi"):
            changed = msgspec.json.encode(ask.body).replace(MODEL.encode(), b"no/such-model")
            path = ask.path.replace(MODEL, "no-such-model")
            response = await send(http, ask, content=changed, path=path)
            assert response.status_code == self.statuses.get("model_not_found", 404)
            check_shape(response, surfaces)

    async def test_wrong_bodies_are_refused(
        self, http: httpx.AsyncClient, surfaces: Sequence[ApiSurface]
    ) -> None:
        for ask in self._with_bodies():
            for content in BAD_BODIES:
                response = await send(http, ask, content=content)
                assert 400 <= response.status_code < 500, (content[:20], response.text[:200])
                check_shape(response, surfaces)

    async def test_odd_values_never_fail_inside(
        self, http: httpx.AsyncClient, surfaces: Sequence[ApiSurface]
    ) -> None:
        for ask in self._with_bodies():
            body = dict(ask.body or {})
            cases = [{key: body[key] for key in body if key != gone} for gone in body]
            cases += [{**body, key: odd} for key in body for odd in ODD_VALUES]
            for case in [*cases, {**body, "no_such_field": 1}]:
                response = await send(http, ask, content=msgspec.json.encode(case))
                assert response.status_code < 500, (case, response.text[:200])
                if response.status_code >= 400:
                    check_shape(response, surfaces)

    # --- answers

    async def test_it_answers(self, http: httpx.AsyncClient) -> None:
        for ask in self.asks("hi"):
            response = await send(http, ask)
            assert response.status_code == 200, response.text
            check_has(response.text, ("Hel", "lo") if ask.streams else ("Hello",))

    async def test_the_prompt_reaches_the_kernel(
        self, http: httpx.AsyncClient, kernel: StubKernel
    ) -> None:
        for text in ("plain", 'é 🙂 "quoted" \\ </s>', "two\nlines"):
            for ask in self.asks(text):
                before = len(kernel.answers)
                response = await send(http, ask)
                assert response.status_code == 200, response.text
                [answer] = kernel.answers[before:]
                assert text in texts_in(answer.request.prompt), answer.request.prompt
                assert answer.request.model == MODEL

    async def test_the_content_type_does_not_matter(self, http: httpx.AsyncClient) -> None:
        """`curl -d` sends that of a form."""
        for ask in self._with_bodies():
            for kind in ("application/x-www-form-urlencoded", "text/plain", ""):
                response = await send(http, ask, content_type=kind)
                assert response.status_code == 200, (kind, response.text[:200])

    @pytest.mark.parametrize("scene", ["nothing", "cut_call", "call", "thinks", "odd_text"])
    async def test_it_writes_whatever_a_model_says(
        self, http: httpx.AsyncClient, kernel: StubKernel, scene: str
    ) -> None:
        kernel.play = SCENES[scene]
        for ask in self.asks("hi"):
            response = await send(http, ask)
            assert response.status_code == 200, response.text
            if scene == "odd_text":
                assert "naïve" in plain(response.text)

    async def test_an_answer_that_fails_says_so(
        self, http: httpx.AsyncClient, kernel: StubKernel
    ) -> None:
        kernel.play = fail_midway
        for ask in self.asks("hi"):
            response = await send(http, ask)
            assert FAILURE in plain(response.text), response.text
            if not ask.streams:
                assert response.status_code == self.statuses.get("engine_failed", 502)

    async def test_streams_come_as_they_are_written(
        self, http: httpx.AsyncClient, kernel: StubKernel
    ) -> None:
        for ask in (one for one in self.asks("hi") if one.streams):
            parts = Parts(1)
            kernel.play = parts.play
            async with asyncio.timeout(WAIT_S), opened(http, ask) as response:
                await parts.complete.wait()
                [answer] = parts.answers
                parts.begin(answer, "early")
                found = ""
                async for chunk in response.aiter_text():
                    found += chunk
                    if "early" in found and answer.outcome is None:
                        parts.finish(answer)
            assert answer.outcome == "ok", f"nothing came before the end: {found!r}"

    async def test_a_client_that_leaves_ends_its_answer(
        self, http: httpx.AsyncClient, kernel: StubKernel
    ) -> None:
        for ask in self.asks("hi"):
            parts = Parts(1)
            kernel.play = parts.play
            kernel.closed.clear()
            task = asyncio.create_task(send(http, ask))
            async with asyncio.timeout(WAIT_S):
                await parts.complete.wait()
                parts.begin(parts.answers[0], "some")
                task.cancel()
                await asyncio.wait([task])
                await kernel.closed.wait()

    async def test_requests_at_the_same_time_do_not_mix(
        self, surfaces: Sequence[ApiSurface], kernel: StubKernel
    ) -> None:
        """Their answers come piece by piece, in turns."""
        asks = [(name, ask) for name in NAMES for ask in self.asks(f"say {name}")]
        if not asks:
            pytest.skip("it asks no model")
        parts = Parts(len(asks))
        kernel.play = parts.play
        async with asyncio.timeout(WAIT_S), serving(*surfaces) as url, client_of(url) as http:
            tasks = [asyncio.create_task(send(http, ask)) for _, ask in asks]
            await parts.complete.wait()
            for answer in parts.answers:
                parts.begin(answer, f"re-{name_in(answer)} ")
            for answer in reversed(parts.answers):
                await asyncio.sleep(0)
                parts.finish(answer, f"end-{name_in(answer)}")
            responses = [await task for task in tasks]
        for (name, _), response in zip(asks, responses, strict=True):
            text = plain(response.text)
            assert f"re-{name}" in text
            assert f"end-{name}" in text
            for other in set(NAMES) - {name}:
                assert f"re-{other}" not in text, f"the answer of {other} went to {name}"
                assert f"end-{other}" not in text, f"the answer of {other} went to {name}"

    async def test_its_example_runs(self, surfaces: Sequence[ApiSurface]) -> None:
        async with serving(*surfaces) as url:
            for surface in surfaces:
                example = surface.example(url, MODEL)
                assert not example or url in example
                assert not example or shlex.split(surface.example(url, "it's"))
                if not example or shutil.which("curl") is None:
                    continue
                shell = await asyncio.create_subprocess_shell(example, stdout=PIPE, stderr=PIPE)
                out, _ = await asyncio.wait_for(shell.communicate(), WAIT_S)
                assert shell.returncode == 0, example
                assert out.strip()
                assert not is_error(out, surface), out
