"""Answers in the background survive the daemon: killed at any time, each is completed, and each of
its events is read once.
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import pytest

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

HERE = str(Path(__file__).parent)
PLUGIN = "stored_surface"
# The daemons are killed so often that they start in safe mode.
ENV = {"PYTHONPATH": HERE, "LMX_PLUGINS_REQUIRED": f'["lmx_kernel.testing.fake", "{PLUGIN}"]'}
ANSWERS = [f"answer-{number}" for number in range(4)]
TOKENS = 400


class Readers:
    """Reads all answers, over restarts of the daemon, and remembers their events."""

    def __init__(self):
        self.events = {name: [] for name in ANSWERS}
        self.outcomes = dict.fromkeys(ANSWERS)

    @property
    def total(self):
        return sum(map(len, self.events.values()))

    def text(self, name):
        return "".join(event.get("text", "") for event in self.events[name])

    async def read(self, http):
        """Read what is new."""
        for name, events in self.events.items():
            answer = await http.get(f"/stored/{name}", params={"first": len(events)})
            answer.raise_for_status()
            events.extend(answer.json()["events"])
            self.outcomes[name] = answer.json()["outcome"]

    async def read_until(self, http, total):
        """Read until there are so many events, or all is said."""
        while self.total < total and not all(self.outcomes.values()):
            await self.read(http)


def folder_of(tmp_path, tokens_per_s):
    write_fake_models(tmp_path, {"m": FakeModel(answer_tokens=TOKENS, tokens_per_s=tokens_per_s)})
    return write_config(tmp_path, (PLUGIN,))


def client(daemon):
    return httpx.AsyncClient(base_url=daemon.url, timeout=60)


async def start(http):
    for name in ANSWERS:
        answer = await http.post(f"/stored/{name}", params={"model": "m", "text": name})
        answer.raise_for_status()


def check(readers, last):
    """Compare what was read bit by bit with the answer as it is read at the end."""
    assert readers.outcomes == dict.fromkeys(ANSWERS, "ok")
    for name, events in readers.events.items():
        assert events == last.events[name]
        assert [event["number"] for event in events] == list(range(len(events)))
        assert [event["kind"] for event in events].count("Admitted") == 1
        assert events[-1]["kind"] == "Finished"
        numbers = [int(word) for word in readers.text(name).split()]
        assert len(numbers) == TOKENS
        assert numbers == [(numbers[0] + n) % 4096 for n in range(TOKENS)]  # as if undisturbed


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.full)])
async def test_answers_survive_a_daemon_that_is_killed_again_and_again(tmp_path, kills):
    config = folder_of(tmp_path, tokens_per_s=60)
    chance, readers, last = random.Random(7), Readers(), Readers()
    for kill in range(kills):
        async with running_daemon(config, **ENV) as daemon, client(daemon) as http:
            if kill == 0:
                await start(http)
            more = chance.randint(1, 2 * len(ANSWERS) * TOKENS // (3 * kills))
            await readers.read_until(http, readers.total + more)
            daemon.process.kill()
            with suppress(httpx.TransportError):
                await http.get("/health")
    assert not all(readers.outcomes.values())
    async with running_daemon(config, **ENV) as daemon, client(daemon) as http:
        await readers.read_until(http, 10**9)
        await last.read(http)
    check(readers, last)


async def test_an_answer_is_suspended_by_a_stop_and_goes_on_later(tmp_path):
    config = folder_of(tmp_path, tokens_per_s=60)
    readers, last = Readers(), Readers()
    async with running_daemon(config, **ENV) as daemon, client(daemon) as http:
        await start(http)
        await readers.read_until(http, 100)
        async with asyncio.timeout(20):
            assert await daemon.stop() == 0
    log = [json.loads(line) for line in (tmp_path / "daemon.log").read_text().splitlines()]
    posts = [line for line in log if line["event"] == "request" and line["method"] == "POST"]
    assert len(posts) == len(ANSWERS)
    assert not any("outcome" in line for line in posts)  # it is not known yet
    assert readers.outcomes == dict.fromkeys(ANSWERS)
    async with running_daemon(config, **ENV) as daemon, client(daemon) as http:
        await readers.read_until(http, 10**9)
        await last.read(http)
    check(readers, last)
