"""What a coding agent costs: the prefix cache over a session, and each dialect beside chat.

usage: python bench/agent.py [session] [dialects]      (default: both)

The session has the shape of Claude Code's: 20 tools, a system text, turns of a call and its result.
Environment of `session`: MODEL (id), MODELS (folder), TURNS, TOKENS (of the last prompt), CONTEXT,
THREADS (of the gguf engine; 1 on a busy machine, where threads that wait for each other burn time).
The demo model has a context of 8,192 tokens, so its session ends at 7,500.
On a busy machine, compare the CPU times: those are of the daemon and its worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from attrs import frozen
from common import Client, head, median, percentile, row

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import (
    RunningDaemon,
    running_daemon,
    worker_processes,
    write_config,
    write_fake_models,
)

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
MODELS = Path(os.environ.get("MODELS", "~/.lmx/models")).expanduser()
TURNS = int(os.environ.get("TURNS", "30"))
TOKENS = int(os.environ.get("TOKENS", "7500"))
CONTEXT = int(os.environ.get("CONTEXT", "8192"))
THREADS = int(os.environ.get("THREADS", "0"))
TOOLS = 20
SAID = 8  # tokens of an answer
REPEATS, STREAMS, STREAM_TOKENS, ROUNDS = 300, 64, 100, 12
DIALECT_PLUGINS = ("openai", "anthropic", "responses")
ENDS = {"message_stop", "response.completed", "response.incomplete"}
WORDS = "the sea is wide and the ship is small so the crew must know the wind and the way home"


# --- a session on a real model -------------------------------------------------------------------


def cpu_s(daemon: RunningDaemon) -> float:
    """Return the CPU time that a daemon and its workers have used."""
    processes = [psutil.Process(daemon.process.pid), *worker_processes(daemon.process.pid)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@frozen
class Asked:
    """A streamed request: its tokens, and what the first token of the answer took."""

    prompt_tokens: int
    cached_tokens: int
    first_s: float
    first_cpu_s: float


def tool(number: int) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "line": {"type": "integer"}},
        "required": ["path"],
    }
    name = f"Tool{number}"
    return {"name": name, "description": f"{name} works on a file.", "input_schema": schema}


def words(count: int, first: int) -> str:
    """Return a text of about so many tokens; another for each ``first``."""
    known = WORDS.split()
    return " ".join(known[(first + n * n) % len(known)] for n in range(count))


def opening() -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "Tidy up this folder."}]}]


def turn(number: int, tokens: int) -> list[dict[str, Any]]:
    """Return what one turn adds: what the model said, and the result of its call."""
    call_id = f"toolu_{number}"
    used = {"type": "tool_use", "id": call_id, "name": f"Tool{number % TOOLS}"}
    said = [{"type": "text", "text": "I look."}, {**used, "input": {"path": f"notes{number}.txt"}}]
    text = [{"type": "text", "text": words(tokens, number)}]
    result = {"type": "tool_result", "tool_use_id": call_id, "content": text}
    return [{"role": "assistant", "content": said}, {"role": "user", "content": [result]}]


def messages_body(turns: list[dict[str, Any]]) -> dict[str, Any]:
    system = [{"type": "text", "text": "You are an agent. " + words(200, 0)}]
    tools = [tool(number) for number in range(TOOLS)]
    body = {"model": MODEL, "system": system, "tools": tools, "messages": turns}
    return {**body, "max_tokens": SAID, "temperature": 0}


async def ask_messages(daemon: RunningDaemon, turns: list[dict[str, Any]]) -> Asked:
    began, began_cpu = time.perf_counter(), cpu_s(daemon)
    first, usage = (0.0, 0.0), {}
    async for event in ended(Client(daemon.url), "/v1/messages", messages_body(turns)):
        if event["type"] == "content_block_delta" and not first[0]:
            first = time.perf_counter() - began, cpu_s(daemon) - began_cpu
        usage = event.get("message", event).get("usage", usage)
    cached = usage.get("cache_read_input_tokens", 0)
    return Asked(usage["input_tokens"] + cached, cached, *first)


async def ask_chat(daemon: RunningDaemon, texts: list[str]) -> Asked:
    began, began_cpu = time.perf_counter(), cpu_s(daemon)
    first, usage = (0.0, 0.0), {}
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    body: dict[str, Any] = {"model": MODEL, "messages": turns}
    body |= {"max_tokens": SAID, "temperature": 0, "stream_options": {"include_usage": True}}
    async for event in ended(Client(daemon.url), "/v1/chat/completions", body):
        if not first[0] and any(choice["delta"].get("content") for choice in event["choices"]):
            first = time.perf_counter() - began, cpu_s(daemon) - began_cpu
        usage = event.get("usage") or usage
    details = usage.get("prompt_tokens_details") or {}
    return Asked(usage["prompt_tokens"], details.get("cached_tokens", 0), *first)


async def ended(client: Client, path: str, body: dict[str, Any]) -> Any:
    """Yield the events of a stream, whatever its dialect ends with."""
    async for event in client.stream(path, body):
        if "error" in event or event.get("type") == "error":
            raise SystemExit(f"{path}: {json.dumps(event)}")
        yield event
        if event.get("type") in ENDS:
            client.close()
            return


async def session() -> None:
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "config.toml"
        config.write_text(
            f'[model_folders]\nhome = false\npaths = ["{MODELS}"]\n'
            f"[models]\ncontext_length = {CONTEXT}\ncache_tokens = {4 * CONTEXT}\nparallel = 2\n"
            f"[gguf]\nthreads = {THREADS}\n"
        )
        async with running_daemon(config) as daemon:
            await run_session(daemon)


async def run_session(daemon: RunningDaemon) -> None:
    await ask_chat(daemon, ["Hi"])  # the model is loaded
    turns = opening()
    before = await ask_messages(daemon, turns)
    added = max(1, (TOKENS - before.prompt_tokens) // TURNS - 80)  # a turn has 80 tokens besides
    # As long as the session, since a new token attends to all that is in the cache.
    plain_texts = [words(before.prompt_tokens, 1)]
    await ask_chat(daemon, plain_texts)
    shares, turns_asked, plain_asked = [], [], []
    for number in range(1, TURNS + 1):
        turns += turn(number, added)
        asked = await ask_messages(daemon, turns)
        new = asked.prompt_tokens - asked.cached_tokens
        plain_texts += ["I look.", words(new - 20, number)]  # a turn's marks are 20 tokens
        plain = await ask_chat(daemon, plain_texts)
        shares.append(asked.cached_tokens / before.prompt_tokens)
        turns_asked.append(asked)
        plain_asked.append(plain)
        print(f"turn {number}: {asked}, plain: {plain}", file=sys.stderr)
        before = asked
    head(f"A session of {TURNS} turns, {TOOLS} tools, {before.prompt_tokens} tokens ({MODEL})")
    row("cached of the previous turn's prompt, least", f"{min(shares):.1%}", ">= 97 %")
    row("cached of the previous turn's prompt, median", f"{median(shares):.1%}")
    for kind, name in (("time", "first_s"), ("CPU time", "first_cpu_s")):
        firsts, plain_firsts = (
            [getattr(one, name) for one in asked] for asked in (turns_asked, plain_asked)
        )
        ratios = [one / other for one, other in zip(firsts, plain_firsts, strict=True)]
        row(f"{kind} to the first token of a turn, median", f"{median(firsts):.2f} s")
        row(
            f"{kind} to that of a plain chat as long, with as many new tokens",
            f"{median(plain_firsts):.2f} s",
        )
        row(f"{kind}: turn over plain chat, median", f"{median(ratios):.2f}", "<= 1.5")
        row(f"{kind}: turn over plain chat, p90", f"{percentile(ratios, 0.9):.2f}", "<= 1.5")


# --- each dialect beside chat --------------------------------------------------------------------


def chat_of(tokens: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": tokens}


def response_of(tokens: int) -> dict[str, Any]:
    return {"input": "Hi", "max_output_tokens": tokens, "store": False}


BODIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "/v1/chat/completions": chat_of,
    "/v1/messages": chat_of,
    "/v1/responses": response_of,
}


async def dialects() -> None:
    with tempfile.TemporaryDirectory() as name:
        write_fake_models(Path(name), {"m": FakeModel(answer_tokens=STREAM_TOKENS)})
        plugins = tuple(f"lmx_{one}_api.plugin" for one in DIALECT_PLUGINS)
        settings = f"[models]\nparallel = {STREAMS}\n"
        async with running_daemon(write_config(Path(name), plugins, settings)) as daemon:
            await single(daemon.url)
            await streamed(daemon)


async def single(url: str) -> None:
    """Requests of one token, the dialects in turns, so that all of them see the same machine."""
    times: dict[str, list[float]] = {path: [] for path in BODIES}
    clients = {path: Client(url) for path in BODIES}
    for _ in range(REPEATS):
        for path, body in BODIES.items():
            began = time.perf_counter()
            await clients[path].post(path, {"model": "m", **body(1)})
            times[path].append(time.perf_counter() - began)
    chat_s, *_ = (median(times[path]) for path in BODIES)
    head(f"A request of one token, median of {REPEATS} (fake backend)")
    for path, taken in times.items():
        over_ms = 1e3 * (median(taken) - chat_s)
        row(path, f"{1e3 * median(taken):.2f} ms ({over_ms:+.2f} ms)", "<= +0.2 ms over chat")


async def streamed(daemon: RunningDaemon) -> None:
    """Many streams side by side, the dialects in turns."""
    times: dict[str, list[float]] = {path: [] for path in BODIES}
    cpu_times: dict[str, list[float]] = {path: [] for path in BODIES}
    for _ in range(ROUNDS):
        for path, body in BODIES.items():
            began, began_cpu = time.perf_counter(), cpu_s(daemon)
            asked = {"model": "m", **body(STREAM_TOKENS)}
            await asyncio.gather(*(read_all(daemon.url, path, asked) for _ in range(STREAMS)))
            times[path].append(time.perf_counter() - began)
            cpu_times[path].append(cpu_s(daemon) - began_cpu)
    head(f"{STREAMS} streams of {STREAM_TOKENS} tokens, least of {ROUNDS} (fake backend)")
    for name, taken in (("time", times), ("CPU time of the server", cpu_times)):
        chat_s, *_ = (min(taken[path]) for path in BODIES)
        for path in BODIES:
            least = min(taken[path])
            row(
                f"{path}, {name}", f"{least:.3f} s ({least / chat_s - 1:+.1%})", "<= +5 % over chat"
            )


async def read_all(url: str, path: str, body: dict[str, Any]) -> None:
    async for _ in ended(Client(url), path, body):
        pass


SECTIONS = {"session": session, "dialects": dialects}


async def main() -> None:
    for name in sys.argv[1:] or list(SECTIONS):
        await SECTIONS[name]()


if __name__ == "__main__":
    asyncio.run(main())
