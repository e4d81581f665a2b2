"""How callers share one busy model: priorities, weights, and what the decision costs.

usage: python bench/fairness.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import timeit
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import define, field
from common import Client, chat, head, median, row

from lmx_kernel.access.keys import KeyFile
from lmx_kernel.runtime.admission import AdmissionRules, plan_admissions
from lmx_kernel.runtime.answer import LiveAnswer, Phase
from lmx_kernel.runtime.request_queue import RequestQueue
from lmx_kernel.runtime.shares import Shares
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_daemon, write_config, write_fake_models
from lmx_kernel.types import EngineLimits, Priority, Terms

SLOTS, TOKENS_PER_S = 8, 50
WAITING, ANSWER_TOKENS = 50, 200
SHORT_TOKENS = 5
SECONDS = 60.0
WEIGHTS = {"one": 1, "two": 2, "four": 4}


async def main() -> None:
    head("Fair shares (fake backend, 50 steps a second, 8 slots)")
    decision()
    await a_person_among_bots()
    await equal_callers()
    await weights()
    await low_requests()


# --- the decision


def decision() -> None:
    """CPU time, since other processes may run."""
    queue, shares = RequestQueue(), Shares()
    for number in range(256 + SLOTS - 1):
        priority = [*Priority][number % 16 % 3]
        request = ask("m", caller=f"key{number % 16}", priority=priority)
        shares.enter(request)
        answer = LiveAnswer(request, "m", number=number)
        answer.resume.phase, answer.prompt_tokens = Phase.PREPARED, 100
        queue.add(answer)
    for candidate in [*queue.waiting][: SLOTS - 1]:
        queue.start(candidate)
    rules = AdmissionRules(
        limits=EngineLimits(context_length=8192, max_sequences=SLOTS, cache_tokens=100_000),
        expected_tokens=512,
        accounts=shares.accounts,
    )

    def decide() -> None:
        plan_admissions(queue.waiting.lines, queue.running, rules)

    took_s = min(timeit.repeat(decide, number=50, repeat=400, timer=time.process_time)) / 50
    row("who is next, 256 waiting of 16 callers", f"{took_s * 1e6:.0f} us of CPU", "<= 20 us")


# --- a daemon with callers


@define
class Site:
    """A daemon, the tokens of its keys, and the tokens that each key was sent."""

    url: str
    keys: dict[str, str]
    served: Counter[str] = field(factory=Counter)

    async def ask(self, key: str, tokens: int) -> float:
        """Stream one answer, and return after how many seconds its first token came."""
        client, began, first_s = Client(self.url, self.keys[key]), time.perf_counter(), 0.0
        async for frame in client.stream("/v1/chat/completions", chat("m", "hello", tokens)):
            for choice in frame.get("choices", ()):  # type: ignore[attr-defined]
                if choice["delta"].get("content"):
                    first_s = first_s or time.perf_counter() - began
                    self.served[key] += 1
        return first_s

    async def bot(self, key: str, tokens: int) -> None:
        """Ask for ever."""
        while True:
            await self.ask(key, tokens)


@asynccontextmanager
async def site(**terms: Terms) -> AsyncIterator[Site]:
    """Hold a daemon open whose keys have these terms."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_fake_models(folder, {"m": FakeModel(tokens_per_s=TOKENS_PER_S)})
        limits = f"[models]\nparallel = {SLOTS}\ncache_tokens = 1000000"
        config = write_config(folder, ("lmx_openai_api.plugin",), limits)
        file = KeyFile(folder)
        keys = {key: file.add(key, ("inference",), one) for key, one in terms.items()}
        async with running_daemon(config) as daemon:
            at = Site(daemon.url, keys)
            await at.ask(next(iter(keys)), 1)  # loads the model
            at.served.clear()
            yield at


@asynccontextmanager
async def busy(at: Site, bots: dict[str, int], tokens: int) -> AsyncIterator[None]:
    """Keep so many requests of each key open."""
    keys = Counter(bots).elements()
    tasks = [asyncio.ensure_future(at.bot(key, tokens)) for key in keys]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def a_person_among_bots() -> None:
    bots = [f"bot{number}" for number in range(6)]
    open_requests = Counter(bots[number % 6] for number in range(WAITING + SLOTS))
    terms = {key: Terms() for key in bots} | {"person": Terms(priority=Priority.HIGH)}
    async with site(**terms) as at:
        idle_s = median([await at.ask("person", SHORT_TOKENS) for _ in range(5)])
        async with busy(at, open_requests, ANSWER_TOKENS):
            await asyncio.sleep(SECONDS / 10)
            at.served.clear()
            await asyncio.sleep(SECONDS / 3)
            alone = at.served.total()
            at.served.clear()
            firsts, end = list[float](), time.perf_counter() + SECONDS / 3
            while (now := time.perf_counter()) < end:
                firsts.append(await at.ask("person", SHORT_TOKENS))
                await asyncio.sleep(max(0.0, min(now + 2, end) - time.perf_counter()))
            shared = at.served.total()
    most_s = 3 * idle_s + 1 / TOKENS_PER_S
    row("first token of a person, idle server", f"{idle_s * 1e3:.0f} ms")
    row(
        "the same beside 6 bots, median and worst",
        f"{median(firsts) * 1e3:.0f} and {max(firsts) * 1e3:.0f} ms",
        f"<= {most_s * 1e3:.0f} ms",
    )
    row("throughput meanwhile", f"{shared / alone:.2f} x", ">= 0.95 x")


async def equal_callers() -> None:
    async with site(greedy=Terms(), modest=Terms(), other=Terms()) as at:
        async with busy(at, {"greedy": 80, "modest": 8, "other": 8}, 40):
            await asyncio.sleep(SECONDS)
        served = [*at.served.values()]
    jain = sum(served) ** 2 / (len(served) * sum(one * one for one in served))
    row("Jain's index, one caller with ten times the requests", f"{jain:.3f}", ">= 0.97")


async def weights() -> None:
    async with site(**{key: Terms(weight=weight) for key, weight in WEIGHTS.items()}) as at:
        async with busy(at, dict.fromkeys(WEIGHTS, 16), 40):
            await asyncio.sleep(SECONDS)
        shares = {key: at.served[key] / weight for key, weight in WEIGHTS.items()}
    mean = sum(shares.values()) / len(shares)
    worst = max(abs(one / mean - 1) for one in shares.values())
    row("weights 1:2:4, furthest from its share", f"{worst:.1%}", "<= 10 %")


async def low_requests() -> None:
    """Low requests under a flood of normal ones: they start once a minute at least."""
    terms = {"low": Terms(priority=Priority.LOW), "normal": Terms()}
    async with site(**terms) as at, busy(at, {"normal": 32}, 40):
        await asyncio.sleep(1)
        wait_s = await at.ask("low", SHORT_TOKENS)
    row("wait of a low request under a flood", f"{wait_s:.0f} s", "60 s and one answer")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
