"""Prompts that begin alike, over unloads, crashes and restarts.

usage: python bench/prefixes.py [first] [session] [bytes] [gap] [mlx]
       (default: the first four, on the demo model as a GGUF; mlx: on that model in float32)
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Client, head, median, row
from lmx_gguf_backend.backend import GgufBackend

from lmx_kernel.engine import Sequence
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.testing.harness import running_daemon
from lmx_kernel.types import EngineSpec, LoadOptions, Location, Sampling
from lmx_kernel.worker.prefix_keeper import PrefixKeeper

GGUF = Path("~/.lmx/models/smollm2-135m-instruct").expanduser()
MODEL = "smollm2-135m-instruct"
BEGIN = "".join(f"Item {number} of the list is here. " for number in range(118))  # 1,200 tokens
ROUNDS = 3
GAP_STEPS = 150
PARTS = ("first", "session", "bytes", "gap")


class Server:
    """A daemon that serves one model, in a home that outlives it."""

    def __init__(self, home: Path, models: Path, **cache: object) -> None:
        keys = "".join(f"{key} = {value}\n" for key, value in cache.items())
        self.config = home / "config.toml"
        self.config.write_text(
            f"[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
            f'paths = ["{models}"]\n[models]\ncontext_length = 16384\ncache_tokens = 20000\n'
            f"parallel = 4\n[cache]\n{keys}"
        )
        self._open: Any = None
        self.url = ""

    async def start(self) -> None:
        self._open = running_daemon(self.config)
        self.url = (await self._open.__aenter__()).url

    async def stop(self) -> None:
        await self._open.__aexit__(None, None, None)

    async def admin(self, path: str) -> Any:
        return json.loads(await Client(self.url).get(f"/admin/{path}"))

    async def ask(self, messages: list[dict[str, str]], tokens: int = 8) -> dict[str, Any]:
        """Return text, usage, and the time to the first token in seconds."""
        began = time.perf_counter()
        found: dict[str, Any] = {"text": "", "first_s": None, "tokens": [], "margins": []}
        body = {"model": MODEL, "messages": messages, "max_tokens": tokens, "temperature": 0}
        body |= {"stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2}
        async for frame in Client(self.url).stream("/v1/chat/completions", body):
            assert "error" not in frame, frame
            for choice in frame.get("choices", ()):  # type: ignore[attr-defined]
                if text := choice["delta"].get("content"):
                    found["first_s"] = found["first_s"] or time.perf_counter() - began
                    found["text"] += text
                for token in (choice.get("logprobs") or {}).get("content", ()):
                    best, second = (one["logprob"] for one in token["top_logprobs"])
                    found["tokens"].append(token["token"])
                    found["margins"].append(best - second)
            if frame.get("usage"):
                found["usage"] = frame["usage"]
        usage = found["usage"]
        found["cached"] = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        found["prompt"] = usage["prompt_tokens"]
        return found

    async def wake(self) -> None:
        """Have the model loaded."""
        await self.ask([user("hi")], 1)

    async def unload(self) -> None:
        body = {"model": MODEL}
        await Client(self.url).post("/admin/models/unload", body)

    async def kill_worker(self) -> None:
        (model,) = (await self.admin("status"))["models"]
        os.kill(model["pid"], signal.SIGKILL)

    async def restart(self) -> None:
        await self.unload()
        await self.stop()
        await self.start()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def parted(one: dict[str, Any], other: dict[str, Any]) -> float | None:
    """Return how much likelier the next token was than the second where two answers part, in
    log-odds; None if they are equal.
    """
    pairs = zip(one["tokens"], other["tokens"], strict=False)
    place = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
    return None if place is None else min(one["margins"][place], other["margins"][place])


async def first(home: Path, models: Path) -> None:
    """The first token after a beginning of 1,200 tokens, by what happened since."""
    server = Server(home, models)
    await server.start()
    await server.wake()
    times: dict[str, list[float]] = {}
    answers: dict[int, list[dict[str, Any]]] = {}

    async def note(name: str, number: int) -> None:
        """Ask what nobody has asked yet, and compare the answer to what was asked first."""
        question = user(f"Now it is {name}. Which item comes last in this list of items?")
        found = await server.ask([user(f"{number} {BEGIN}"), question], 1)
        times.setdefault(name, []).append(found["first_s"])
        answer = await server.ask([user(f"{number} {BEGIN}"), user("Which item is last?")], 16)
        answers.setdefault(number, []).append(answer)
        print(f"  {name} {number}: {found['first_s']:.3f} s, {found['cached']} cached", flush=True)

    for number in range(ROUNDS):
        await note("computed", number)
        await note("in memory", number)
        for name, loss in (
            ("unload", server.unload),
            ("SIGKILL of the worker", server.kill_worker),
            ("restart of the daemon", server.restart),
        ):
            await asyncio.sleep(0.3)  # for the writer
            await loss()
            await server.wake()
            await note(name, number)
    await server.stop()
    head("First token after a beginning of 1,200 tokens, load time apart")
    computed, memory = median(times["computed"]), median(times["in memory"])
    row("computed", f"{computed * 1000:.0f} ms")
    row("hit in memory", f"{memory * 1000:.0f} ms")
    for name, found in list(times.items())[2:]:
        took = median(found)
        ratios = f"{took / memory:.2f} x in memory, {took / computed:.3f} x computed"
        row(name, f"{took * 1000:.0f} ms = {ratios}", "<= 2 x and <= 0.1 x")
    margins = [parted(found[0], other) for found in answers.values() for other in found[1:]]
    apart = [margin for margin in margins if margin is not None]
    row("greedy texts equal to the first", f"{len(margins) - len(apart)} of {len(margins)}")
    row(
        "where they part, log-odds of the two tokens, most", f"{max(apart, default=0.0):.3f}", "< 1"
    )


async def session(home: Path, models: Path) -> None:
    """An agent's session: each turn adds a result of a tool; the model is lost now and then."""
    server = Server(home, models)
    await server.start()
    messages, extra, seconds, most = [user(BEGIN)], [], [], 0
    for turn in range(30):
        found = await server.ask(messages, 24)
        if turn:
            new = found["prompt"] - most
            extra.append(found["prompt"] - found["cached"] - new)
        seconds.append(found["first_s"])
        most = found["prompt"]
        messages += [{"role": "assistant", "content": found["text"]}]
        messages += [user(f"Result {turn}: " + f"line {turn} of a file, " * 45)]
        if turn % 7 == 3:
            await asyncio.sleep(0.3)
            await (server.restart() if turn % 2 else server.unload())
    head(f"A session of 30 turns growing to {most} tokens, the model lost 4 times")
    row("tokens computed beyond the new ones, most", f"{max(extra)}", "<= 64, one block")
    row("first token, first turn and last", f"{seconds[0]:.2f} s, {seconds[-1]:.2f} s")
    await server.stop()


async def stored_bytes(home: Path, models: Path) -> None:
    """What 20 turns of 500 tokens write, to the size of the last state."""
    server = Server(home, models)
    await server.start()
    messages: list[dict[str, str]] = []
    for turn in range(20):
        messages.append(user(f"Turn {turn}. " + f"The word {turn} is said. " * 68))
        found = await server.ask(messages, 8)
        messages.append({"role": "assistant", "content": found["text"]})
    tokens = found["prompt"] + 8
    await server.unload()
    (kept,) = (await server.admin("cache"))["models"]
    await server.stop()
    state = tokens // 64 * (kept["size_bytes"] / kept["entries"])
    head("20 turns of 500 tokens")
    row("bytes on disk", f"{kept['size_bytes']:,} for {tokens} tokens")
    row("to the size of the last state", f"{kept['size_bytes'] / state:.2f} x", "<= 1.3 x")


async def gap(home: Path, models: Path) -> None:
    """What storing adds to the steps of an engine: a stream beside prompts that are stored."""
    env = GgufBackend().worker_env({})
    os.environ.update(env)  # before the library is loaded
    from lmx_gguf_backend.worker import lmx_open_engine  # noqa: PLC0415

    folder = models / MODEL
    names = tuple(path.name for path in folder.iterdir())
    (card,) = GgufBackend().identify(Location(MODEL, folder, names))
    options = LoadOptions(context_length=2048, parallel=4, cache_tokens=4096)
    engine = lmx_open_engine(EngineSpec(card=card, options=options), lambda *_: None)
    store = PrefixStore.open(
        home / "prefixes", MODEL, b"i" * 16, limit_bytes=1 << 30, ttl_s=0.0, warn=print
    )
    keeper = PrefixKeeper(engine.states, store, print)
    sampling = Sampling(temperature=0, seed=1)
    for number, length in enumerate((20, 500, 500)):
        tokens = [(number * 7919 + place * 31) % 4000 + 100 for place in range(length)]
        sequence = Sequence(id=number, tokens=tokens, produced=0, sampling=sampling)
        assert not keeper.begin(sequence)
        engine.add(sequence)
    steps, stored = [], []
    for _ in range(GAP_STEPS):
        times = [time.thread_time()]
        step = engine.step()
        times.append(time.thread_time())
        keeper.stepped(step)
        times.append(time.thread_time())
        steps.append(times[1] - times[0])
        stored.append(times[2] - times[1])
    keeper.close()
    head("What storing adds to the steps of a stream, beside two prompts of 500 tokens (CPU time)")
    row("all steps", f"{sum(steps):.2f} s + {sum(stored) / sum(steps):.2%}", "<= +10 %")
    slowest = max(zip(stored, steps, strict=True))
    row("the slowest", f"{slowest[1] * 1000:.0f} ms + {slowest[0] * 1000:.1f} ms")
    row("steps that took 10 % longer", f"{_longer(steps, stored)} of {len(steps)}")
    row("blocks stored", f"{len(list(store.folder.iterdir()))}")


def _longer(steps: list[float], stored: list[float]) -> int:
    return sum(more > 0.1 * step for step, more in zip(steps, stored, strict=True))


async def main() -> None:
    parts = sys.argv[1:] or list(PARTS)
    run = {"first": first, "session": session, "bytes": stored_bytes, "gap": gap}
    with tempfile.TemporaryDirectory() as name:
        models = GGUF.parent
        if "mlx" in parts:
            parts.remove("mlx")
            models = Path(name) / "models"
            source = next(GGUF.glob("*.gguf"))
            target = str(models / MODEL)
            subprocess.run(
                [sys.executable, "-m", "lmx_kernel", "convert", str(source), "--output", target,
                 "--dtype", "float32", "--dequantize"], check=True)  # fmt: skip
        for part in parts or PARTS:
            home = Path(name) / part
            home.mkdir()
            await run[part](home, models)


if __name__ == "__main__":
    asyncio.run(main())
