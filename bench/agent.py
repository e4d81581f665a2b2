"""What a coding agent costs: the prefix cache over a session, and each dialect beside chat.

usage: python bench/agent.py [session] [dialects]      (default: both)

The session has the shape of Claude Code's: 20 tools, a system text, turns of a call and its result.
Environment of `session`: MODEL (id), MODELS (folder), TURNS, TOKENS (of the last prompt), CONTEXT.
The demo model has a context of 8,192 tokens, so its session ends at 7,500.
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

from attrs import frozen
from common import Client, head, median, percentile, row

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
MODELS = Path(os.environ.get("MODELS", "~/.lmx/models")).expanduser()
TURNS = int(os.environ.get("TURNS", "30"))
TOKENS = int(os.environ.get("TOKENS", "7500"))
CONTEXT = int(os.environ.get("CONTEXT", "8192"))
TOOLS = 20
SAID = 8  # tokens of an answer
REPEATS, STREAMS, STREAM_TOKENS, ROUNDS = 300, 64, 100, 5
DIALECT_PLUGINS = ("openai", "anthropic", "responses")
ENDS = {"message_stop", "response.completed", "response.incomplete"}
WORDS = "the sea is wide and the ship is small so the crew must know the wind and the way home"


# --- a session on a real model -------------------------------------------------------------------


@frozen
class Asked:
    """A streamed request: its tokens, and when the first token of the answer came."""

    prompt_tokens: int
    cached_tokens: int
    first_s: float


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


async def ask_messages(url: str, turns: list[dict[str, Any]]) -> Asked:
    began, first_s, usage = time.perf_counter(), 0.0, {}
    async for event in ended(Client(url), "/v1/messages", messages_body(turns)):
        if event["type"] == "content_block_delta" and not first_s:
            first_s = time.perf_counter() - began
        usage = event.get("message", event).get("usage", usage)
    cached = usage.get("cache_read_input_tokens", 0)
    return Asked(usage["input_tokens"] + cached, cached, first_s)


async def ask_chat(url: str, texts: list[str]) -> Asked:
    began, first_s, usage = time.perf_counter(), 0.0, {}
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    body: dict[str, Any] = {"model": MODEL, "messages": turns}
    body |= {"max_tokens": SAID, "temperature": 0, "stream_options": {"include_usage": True}}
    async for event in ended(Client(url), "/v1/chat/completions", body):
        if not first_s and any(choice["delta"].get("content") for choice in event["choices"]):
            first_s = time.perf_counter() - began
        usage = event.get("usage") or usage
    details = usage.get("prompt_tokens_details") or {}
    return Asked(usage["prompt_tokens"], details.get("cached_tokens", 0), first_s)


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
        )
        async with running_daemon(config) as daemon:
            await run_session(daemon.url)


async def run_session(url: str) -> None:
    await ask_chat(url, ["Hi"])  # the model is loaded
    turns = opening()
    before = await ask_messages(url, turns)
    added = max(1, (TOKENS - before.prompt_tokens) // TURNS - 80)  # a turn has 80 tokens besides
    # As long as the session, since a new token attends to all that is in the cache.
    plain_texts = [words(before.prompt_tokens, 1)]
    await ask_chat(url, plain_texts)
    shares, firsts, plain_firsts = [], [], []
    for number in range(1, TURNS + 1):
        turns += turn(number, added)
        asked = await ask_messages(url, turns)
        new = asked.prompt_tokens - asked.cached_tokens
        plain_texts += ["I look.", words(new - 20, number)]  # a turn's marks are 20 tokens
        plain = await ask_chat(url, plain_texts)
        shares.append(asked.cached_tokens / before.prompt_tokens)
        firsts.append(asked.first_s)
        plain_firsts.append(plain.first_s)
        print(f"turn {number}: {asked}, plain: {plain}", file=sys.stderr)
        before = asked
    ratios = [one / other for one, other in zip(firsts, plain_firsts, strict=True)]
    head(f"A session of {TURNS} turns, {TOOLS} tools, {before.prompt_tokens} tokens ({MODEL})")
    row("cached of the previous turn's prompt, least", f"{min(shares):.1%}", ">= 97 %")
    row("cached of the previous turn's prompt, median", f"{median(shares):.1%}")
    row("first token of a turn, median", f"{median(firsts):.2f} s")
    row(
        "first token in a plain chat as long, with as many new tokens",
        f"{median(plain_firsts):.2f} s",
    )
    row("turn over plain chat, median", f"{median(ratios):.2f}", "<= 1.5")
    row("turn over plain chat, p90", f"{percentile(ratios, 0.9):.2f}", "<= 1.5")


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
            await streamed(daemon.url)


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


async def streamed(url: str) -> None:
    """Many streams side by side, the dialects in turns."""
    times: dict[str, list[float]] = {path: [] for path in BODIES}
    for _ in range(ROUNDS):
        for path, body in BODIES.items():
            began = time.perf_counter()
            asks = [
                read_all(url, path, {"model": "m", **body(STREAM_TOKENS)}) for _ in range(STREAMS)
            ]
            await asyncio.gather(*asks)
            times[path].append(time.perf_counter() - began)
    chat_s, *_ = (median(times[path]) for path in BODIES)
    head(f"{STREAMS} streams of {STREAM_TOKENS} tokens, median of {ROUNDS} (fake backend)")
    for path, taken in times.items():
        over = median(taken) / chat_s - 1
        row(path, f"{median(taken):.3f} s ({over:+.1%})", "<= +5 % over chat")


async def read_all(url: str, path: str, body: dict[str, Any]) -> None:
    async for _ in ended(Client(url), path, body):
        pass


SECTIONS = {"session": session, "dialects": dialects}


async def main() -> None:
    for name in sys.argv[1:] or list(SECTIONS):
        await SECTIONS[name]()


if __name__ == "__main__":
    asyncio.run(main())
