"""What routing by rules costs, how well it tells tasks apart, and whether it keeps caches warm.

usage: python bench/router.py
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil
from common import Client, chat, head, median, percentile, row
from lmx_router_rules.router import RulesRouter
from lmx_router_rules.settings import RulesSettings
from lmx_router_rules.task import TASKS, classify, text_of

from lmx_kernel.config import read_config, structure
from lmx_kernel.interfaces import ModelState, RoutingContext, SettingsSection
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_daemon, write_config, write_fake_models
from lmx_kernel.types import ChatPrompt, GenerationRequest, ModelCard

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins/router_rules/tests"))
from labelled import load

RULES, MODELS, REQUESTS = 100, 50, 1000
LONG_CHARS = 16_000  # 4k tokens, as LMX estimates them
DEMO = Path("~/.lmx/models/smollm2-135m-instruct").expanduser()
PLUGINS = ("lmx_router_rules.plugin", "lmx_openai_api.plugin")
CONDITIONS = (
    'task = ["translation"]\nhours = ["00:00-23:59"]',
    'keys = ["nobody-*"]',
    'headers = {x-team = "team-*"}',
    "min_prompt_tokens = 100000",
    'clients = ["10.*"]\ndays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]',
    "structured = true\ntools = true",
    'asked = ["role-*"]',
    "loaded = true\nmax_waiting = 0\nmin_tokens_per_s = 1e9",
)


async def main() -> None:
    if sys.argv[1:] == ["decide"]:
        print(json.dumps(decisions()))
        return
    tasks()
    decisions_alike()
    in_process()
    await through_the_server()
    if DEMO.exists():
        await sticky()


# --- tasks ---


def tasks() -> None:
    for part in ("known", "apart"):
        labelled = load(part)
        found = Counter((task, classify(request)) for task, request in labelled)
        right = sum(found[task, task] for task in TASKS)
        head(f"Tasks of {len(labelled)} labelled prompts, `{part}`")
        row("recognised", f"{right / len(labelled):.1%}", ">= 90%")
        print(f"\n| is \\ found | {' | '.join(TASKS)} |\n|{'---|' * (len(TASKS) + 1)}")
        for task in TASKS:
            cells = (str(found[task, other] or "") for other in TASKS)
            print(f"| {task} | {' | '.join(cells)} |")
    head("Classification")
    texts = [text_of(r.prompt.messages[-1]) for _, r in load("known") if is_chat(r)]
    for name, text in (("4k tokens", " ".join(texts)[-LONG_CHARS:]), ("a question", texts[0])):
        times = clock(partial(classify, ask("auto", text)))
        row(f"{name}, p50", f"{median(times) * 1e3:.3f} ms", "< 0.2 ms")


def is_chat(request: GenerationRequest) -> bool:
    return isinstance(request.prompt, ChatPrompt)


def clock(call: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


# --- decisions ---


def rules_text() -> str:
    """Return 100 rules of which only the last holds."""
    rules = [
        f'[[router_rules.rules]]\nname = "rule {n}"\nmodels = ["m{n % MODELS}", "m*7"]\n'
        f"{CONDITIONS[n % len(CONDITIONS)]}\n"
        for n in range(RULES - 1)
    ]
    last = '[[router_rules.rules]]\nname = "last"\nmodels = ["m0", "m1", "m2"]\nbalance = true\n'
    return "".join((*rules, last))


def router() -> tuple[RulesRouter, list[ModelCard], RoutingContext]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.toml"
        path.write_text(rules_text())
        sections = [SettingsSection("router_rules", RulesSettings)]
        settings = structure(read_config(path, {}), sections)
    cards = [
        ModelCard(
            id=f"m{n}",
            backend="fake",
            path=Path(),
            format="fake",
            architecture="fake",
            size_bytes=n,
            context_length=4096,
        )
        for n in range(MODELS)
    ]
    idle = ModelState(context_length=4096, tokens_per_s=1.0)
    context = RoutingContext(now=datetime(2026, 1, 1, tzinfo=UTC), state=lambda _: idle)
    return RulesRouter(settings), cards, context


def decisions() -> list[str]:
    rules, cards, context = router()
    requests = [request for part in ("known", "apart") for _, request in load(part)]
    return [repr(rules.route(request, cards, context)) for request in requests]


def decisions_alike() -> None:
    runs = [
        subprocess.run(
            [sys.executable, __file__, "decide"],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    ]
    first, second = map(json.loads, runs)
    differing = sum(a != b for a, b in zip(first, second, strict=True))
    head("Decisions in two processes")
    row(f"differing, of {len(first)}", str(differing), "0")


def in_process() -> None:
    rules, cards, context = router()
    head(f"One decision, {RULES} rules and {MODELS} models")
    for name, text in (("a question", "What is a mutex?"), ("4k tokens", "word " * 3200)):
        times = clock(partial(rules.route, ask("auto", text), list(cards), context))
        row(f"{name}, p50", f"{median(times) * 1e3:.3f} ms")


async def through_the_server() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_fake_models(folder, {f"m{n}": FakeModel() for n in range(MODELS)})
        async with running_daemon(write_config(folder, PLUGINS, rules_text())) as daemon:
            client, process = Client(daemon.url), psutil.Process(daemon.process.pid)
            await one_token(client, "m0")
            pairs = [
                (await one_token(client, "m0"), await one_token(client, "auto"))
                for _ in range(REQUESTS)
            ]
            spent = [await cpu_s(client, process, model) for model in ("m0", "auto")]
    named, routed = map(list, zip(*pairs, strict=True))
    head(f"1-token requests through the server, {RULES} rules and {MODELS} models")
    row("by name, p50", f"{median(named) * 1e3:.2f} ms")
    row("routed, p50", f"{median(routed) * 1e3:.2f} ms")
    row("added, p50", f"{(median(routed) - median(named)) * 1e3:.2f} ms", "<= 0.3 ms")
    row("routed, p99", f"{percentile(routed, 0.99) * 1e3:.2f} ms")
    row("added to the daemon's CPU time", f"{(spent[1] - spent[0]) * 1e3:.2f} ms")


async def cpu_s(client: Client, process: psutil.Process, model: str) -> float:
    """Return the CPU time that the daemon spends on a request; other programs matter less to it."""
    before = sum(process.cpu_times()[:2])
    for _ in range(REQUESTS):
        await one_token(client, model)
    return (sum(process.cpu_times()[:2]) - before) / REQUESTS


async def one_token(client: Client, model: str) -> float:
    began = time.perf_counter()
    await client.post("/v1/chat/completions", chat(model, "hi", 1))
    return time.perf_counter() - began


# --- caches ---


async def sticky() -> None:
    """Ask two copies of the demo model, which are equals, in chats of two turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for copy in ("left", "right"):
            (folder / "models").mkdir(exist_ok=True)
            (folder / "models" / copy).symlink_to(DEMO)
        config = folder / "config.toml"
        config.write_text(
            "[model_folders]\nhugging_face = false\nlm_studio = false\n"
            '[[router_rules.rules]]\nname = "either"\nmodels = ["left", "right"]\nbalance = true\n'
        )
        async with running_daemon(config) as daemon:
            client = Client(daemon.url)
            for model in ("left", "right"):
                await client.post("/v1/chat/completions", chat(model, "hi", 1))
            shares = [await second_turn(client, n) for n in range(8)]
    head("The second turn of 8 chats over two equal models (SmolLM2-135M)")
    row("of its prompt in the cache, median", f"{median(shares):.0%}")
    row("least", f"{min(shares):.0%}", "> 0")


async def second_turn(client: Client, number: int) -> float:
    """Return the share of a second turn's prompt that was cached."""
    turns = [{"role": "user", "content": f"Name {number + 2} animals of the sea and the land."}]
    body = {"model": "auto", "max_tokens": 32, "temperature": 0}
    first = json.loads(await client.post("/v1/chat/completions", {**body, "messages": turns}))
    turns += [first["choices"][0]["message"], {"role": "user", "content": "Now of the air."}]
    second = json.loads(await client.post("/v1/chat/completions", {**body, "messages": turns}))
    usage = second["usage"]
    return usage["prompt_tokens_details"]["cached_tokens"] / usage["prompt_tokens"]


if __name__ == "__main__":
    asyncio.run(main())
