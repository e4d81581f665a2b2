"""The page in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from playwright.async_api import Page, async_playwright

from lmx_kernel.testing.harness import running_daemon

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: .ci/run installs it")


@define
class Seen:
    """What happens in the browser.

    :ivar complaints: errors and warnings of its console.
    :ivar urls: all that was asked for.
    """

    page: Page
    complaints: list[str] = field(factory=list)
    urls: list[str] = field(factory=list)


@asynccontextmanager
async def browsing(home: Path) -> AsyncIterator[Seen]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch_persistent_context(
            home, executable_path=CHROMIUM, args=FLAGS
        )
        seen = Seen(await browser.new_page())
        seen.page.on("console", lambda message: _note(seen, message))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("request", lambda request: seen.urls.append(request.url))
        yield seen
        await browser.close()


def _note(seen: Seen, message: Any) -> None:
    if message.type in ("error", "warning"):
        seen.complaints.append(message.text)


async def test_it_shows_every_operation_and_asks_nobody_else(tmp_path, url, document):
    async with browsing(tmp_path) as seen:
        await seen.page.goto(f"{url}/docs")
        await seen.page.locator(".opblock").first.wait_for()
        shown = await seen.page.locator(".opblock-summary-path").all_inner_texts()
        texts = [text.replace("\u200b", "") for text in shown]
    paths = document["paths"].items()
    tagged = [path for path, found in paths for one in found.values() for _ in one["tags"]]
    assert sorted(texts) == sorted(tagged)
    assert seen.complaints == []
    assert all(asked.startswith((url, "data:")) for asked in seen.urls)
    assert f"{url}/openapi.json" in seen.urls


async def test_an_operation_can_be_tried(tmp_path, url):
    async with browsing(tmp_path) as seen:
        await seen.page.goto(f"{url}/docs")
        block = seen.page.locator("#operations-openai-get_v1_models")
        await block.click()
        await block.get_by_role("button", name="Try it out").click()
        async with seen.page.expect_response(f"{url}/v1/models") as expected:
            await block.get_by_role("button", name="Execute").click()
        assert (await (await expected.value).json())["data"][0]["id"] == "m"
    assert seen.complaints == []


async def test_it_asks_for_the_key_and_then_uses_it(tmp_path, config):
    own = tmp_path / "home" / "config.toml"
    own.parent.mkdir()
    own.write_text(config.read_text())
    async with (
        running_daemon(own, LMX_SERVER_API_KEY="sesame") as daemon,
        browsing(tmp_path / "browser") as seen,
    ):
        seen.page.on("dialog", lambda dialog: dialog.accept("sesame"))
        # The page and its parts ask for a key too, which a browser cannot be told.
        await seen.page.route("**/docs**", _with_key)
        await seen.page.goto(f"{daemon.url}/docs")
        block = seen.page.locator("#operations-openai-get_v1_models")
        await block.click()
        await block.get_by_role("button", name="Try it out").click()
        async with seen.page.expect_response(f"{daemon.url}/v1/models") as expected:
            await block.get_by_role("button", name="Execute").click()
        assert (await expected.value).status == 200


async def _with_key(route: Any) -> None:
    await route.continue_(headers={**route.request.headers, "authorization": "Bearer sesame"})
