"""Prompts that begin alike, over unloads, crashes and restarts.

usage: python bench/prefixes.py [first] [session] [resume] [bytes] [gap] [mlx] [x.gguf]
       (default: all five, on the demo model as a GGUF; mlx: on the model in float32; further:
       rounds=3, threads=0, lines=24: of 7 tokens each, that a turn of the session adds)

On a busy machine only ratios count: those of CPU seconds of the daemon and its worker more than
those of times.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from common import Client, head, row
from engines import GGUF, float32_model

from lmx_kernel.engine import STATE_TOKENS
from lmx_kernel.testing.driver import Driver
from lmx_kernel.testing.harness import running_daemon
from lmx_kernel.testing.stored_states import StoredDriver
from lmx_kernel.types import EngineSpec, LoadOptions, Location

MODEL = "model"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
BEGIN = "".join(f"Item {number} of the list is here. " for number in range(118))  # 1,200 tokens
GAP_STEPS = 100
TURNS = 30
NUMBERS = dict(part.split("=") for part in sys.argv if "=" in part)
ROUNDS, LINES = int(NUMBERS.get("rounds", 3)), int(NUMBERS.get("lines", 24))
THREADS = {"threads": int(NUMBERS.get("threads", 0))}
PARTS = ("first", "session", "resume", "bytes", "gap")


class Server:
    """A daemon that serves one model, in a home that outlives it."""

    def __init__(self, home: Path, models: Path, **cache: object) -> None:
        keys = "".join(f"{key} = {value}\n" for key, value in cache.items())
        self.config = home / "config.toml"
        self.config.write_text(
            f"[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
            f'paths = ["{models}"]\n[models]\ncontext_length = 8192\ncache_tokens = 12000\n'
            f"parallel = 4\n[cache]\n{keys}"
            f"[gguf]\nthreads = {THREADS['threads']}\n[mlx]\nthreads = {THREADS['threads']}\n"
            f'[[model]]\nmatch = "{MODEL}"\nchat_template = "{home / "template"}"\n'
        )
        (home / "template").write_text(TEMPLATE)
        self._open: Any = None
        self._daemon: Any = None
        self.url = ""

    async def start(self) -> None:
        self._open = running_daemon(self.config)
        running = await self._open.__aenter__()
        self.url, self._daemon = running.url, psutil.Process(running.process.pid)

    def cpu_s(self) -> float:
        """Return the CPU seconds that the daemon and its workers have taken."""
        times = [one.cpu_times() for one in (self._daemon, *self._daemon.children())]
        return sum(one.user + one.system for one in times)

    async def stop(self) -> None:
        await self._open.__aexit__(None, None, None)

    async def admin(self, path: str) -> Any:
        return json.loads(await Client(self.url).get(f"/admin/{path}"))

    async def ask(self, messages: list[dict[str, str]], tokens: int = 8) -> dict[str, Any]:
        """Return text, usage, and the time to the first token in seconds."""
        began, cpu_s = time.perf_counter(), self.cpu_s()
        found: dict[str, Any] = {"text": "", "first_s": None, "tokens": [], "margins": []}
        body = {"model": MODEL, "messages": messages, "max_tokens": tokens, "temperature": 0}
        body |= {"stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2}
        async for frame in Client(self.url).stream("/v1/chat/completions", body):
            assert "error" not in frame, frame
            for choice in frame.get("choices", ()):  # type: ignore[attr-defined]
                text = choice["delta"].get("content") or ""
                if text or choice["finish_reason"]:
                    found["first_s"] = found["first_s"] or time.perf_counter() - began
                found["text"] += text
                for token in (choice.get("logprobs") or {}).get("content", ()):
                    best, second = (one["logprob"] for one in token["top_logprobs"])
                    found["tokens"].append(token["token"])
                    found["margins"].append(best - second)
            if frame.get("usage"):
                found["usage"] = frame["usage"]
        usage = found["usage"]
        found["cpu_s"] = self.cpu_s() - cpu_s
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
    cpu: dict[str, list[float]] = {}
    answers: dict[int, list[dict[str, Any]]] = {}

    async def note(name: str, number: int) -> None:
        """Ask what nobody has asked yet, and compare the answer to what was asked first."""
        question = user(f"Now it is {name}. Which item comes last in this list of items?")
        found = await server.ask([user(f"{number} {BEGIN}"), question], 1)
        times.setdefault(name, []).append(found["first_s"])
        cpu.setdefault(name, []).append(found["cpu_s"])
        answer = await server.ask([user(f"{number} {BEGIN}"), user("Which item is last?")], 16)
        answers.setdefault(number, []).append(answer)
        took = f"{found['first_s']:.3f} s, CPU {found['cpu_s']:.2f} s"
        print(f"  {name} {number}: {took}, {found['cached']} cached", flush=True)

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
    for kind, measured in (("", times), (", CPU", cpu)):
        computed, memory = min(measured["computed"]), min(measured["in memory"])
        row(f"computed{kind}", f"{computed * 1000:.0f} ms")
        row(f"hit in memory{kind}", f"{memory * 1000:.0f} ms")
        for name, found in list(measured.items())[2:]:
            took = min(found)
            ratios = f"{took / memory:.2f} x in memory, {took / computed:.3f} x computed"
            row(f"{name}{kind}", f"{took * 1000:.0f} ms = {ratios}", "<= 2 x and <= 0.1 x")
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
    for turn in range(TURNS):
        found = await server.ask(messages, 24)
        if turn:
            new = found["prompt"] - most
            extra.append(found["prompt"] - found["cached"] - new)
        seconds.append(found["first_s"])
        most = found["prompt"]
        messages += [{"role": "assistant", "content": found["text"]}]
        messages += [user(f"Result {turn}: " + f"line {turn} of a file, " * LINES)]
        if turn % 7 == 3:
            await asyncio.sleep(0.3)
            await (server.restart() if turn % 2 else server.unload())
    head(f"A session of {TURNS} turns growing to {most} tokens, the model lost 4 times")
    goal = f"<= {STATE_TOKENS}, one block"
    row("tokens computed beyond the new ones, most", f"{max(extra)}", goal)
    row("first token, first turn and last", f"{seconds[0]:.2f} s, {seconds[-1]:.2f} s")
    await server.stop()


async def resume(home: Path, models: Path) -> None:
    """A stream whose worker is killed: how long it pauses, the load apart."""
    server = Server(home, models)
    await server.start()
    await server.wake()
    pauses, loads = [], []
    for number in range(min(ROUNDS, 2)):  # the third crash within a minute rests the model
        body = {"model": MODEL, "messages": [user(f"r{number} {BEGIN}")], "max_tokens": 60}
        body |= {"temperature": 0, "logit_bias": {"2": -100}}
        times: list[float] = []
        async for frame in Client(server.url).stream("/v1/chat/completions", body):
            assert "error" not in frame, frame
            if not any(one["delta"].get("content") for one in frame.get("choices", ())):
                continue
            times.append(time.perf_counter())
            if len(times) == 20:
                await server.kill_worker()
        pauses.append(max(b - a for a, b in pairwise(times)))
        log = [json.loads(line) for line in (home / "daemon.log").read_text().splitlines()
               if line.startswith("{")]  # fmt: skip
        loads.append([one["load_s"] for one in log if one.get("event") == "model_loaded"][-1])
    details = (await server.admin("status"))["models"][0]["engine"]["details"]
    await server.stop()
    head("A stream with a beginning of 1,200 tokens whose worker is killed")
    over = min(pause - load for pause, load in zip(pauses, loads, strict=True))
    row("pause, least", f"{min(pauses):.2f} s, of which the load took {min(loads):.2f} s")
    row("beyond the load, least", f"{over:.2f} s", "<= 0.5 s")
    row("tokens taken from disk by the last", f"{details['prefix_tokens_disk']:.0f}")


async def stored_bytes(home: Path, models: Path) -> None:
    """What 20 turns write that fill the context, to the size of the last state."""
    server = Server(home, models)
    await server.start()
    messages: list[dict[str, str]] = []
    for turn in range(20):
        messages.append(user(f"Turn {turn}. " + f"The word {turn} is said. " * 50))
        found = await server.ask(messages, 8)
        messages.append({"role": "assistant", "content": found["text"]})
    tokens = found["prompt"] + 8
    await server.unload()
    (kept,) = (await server.admin("cache"))["models"]
    await server.stop()
    state = tokens // STATE_TOKENS * (kept["size_bytes"] / kept["entries"])
    head("20 turns")
    row("bytes on disk", f"{kept['size_bytes']:,} for {tokens} tokens")
    row("to the size of the last state", f"{kept['size_bytes'] / state:.2f} x", "<= 1.3 x")


async def gap(home: Path, models: Path) -> None:
    """What storing adds to the steps of an engine: a stream beside prompts that are stored."""
    engine = open_engine(models / MODEL)
    costs: dict[bool, list[float]] = {False: [], True: []}
    shares, slower, steps = [], 0, 0
    for number in range(2 * ROUNDS):
        stored = StoredDriver(engine, home / f"prefixes{number}")
        driver = stored if number % 2 else Driver(engine)
        for place, length in enumerate((20, 500, 500)):
            tokens = [(number * 97 + place * 7919 + n * 31) % 250 + 3 for n in range(length)]
            driver.add(place, tokens)
        began = time.process_time()
        for _ in range(GAP_STEPS):
            times = [time.perf_counter()]
            step = Driver.step(driver)
            times.append(time.perf_counter())
            if driver is stored:
                stored.guard.stepped(step)
                times.append(time.perf_counter())
                took, more = times[1] - times[0], times[2] - times[1]
                shares.append((more, took))
                slower, steps = slower + (more > 0.1 * took), steps + 1
        costs[driver is stored].append(time.process_time() - began)
        for place in range(3):
            driver.remove(place)
        engine.trim()
        stored.guard.close()
    head("What storing adds to the steps of a stream, beside two prompts of 500 tokens")
    off, on = min(costs[False]), min(costs[True])
    row("CPU of all threads, least", f"{off:.2f} s without, {on:.2f} s with = {on / off:.3f} x")
    adds = sum(more for more, _ in shares) / sum(took for _, took in shares)
    row("time of the engine's thread, all steps", f"+{adds:.2%}", "<= +10 %")
    more, took = max(shares)
    row("the slowest", f"{took * 1000:.0f} ms + {more * 1000:.1f} ms")
    row("steps that took 10 % longer", f"{slower} of {steps}")


def open_engine(folder: Path) -> Any:
    """Open the model in a folder in this process, by the backend of its files."""
    kind = "gguf" if list(folder.glob("*.gguf")) else "mlx"
    sys.path[:] = [place for place in sys.path if Path(place) != Path(__file__).parent]  # mlx.py
    backend = backend_of(kind)
    os.environ.update(backend.worker_env(THREADS))  # before the library is loaded
    worker = importlib.import_module(f"lmx_{kind}_backend.worker")
    names = tuple(path.name for path in folder.iterdir())
    (card,) = backend.identify(Location(MODEL, folder, names))
    options = LoadOptions(context_length=2048, parallel=4, cache_tokens=6000)
    return worker.lmx_open_engine(
        EngineSpec(card=card, options=options, settings=THREADS), lambda *_: None
    )


def backend_of(kind: str) -> Any:
    module = importlib.import_module(f"lmx_{kind}_backend.backend")
    return getattr(module, f"{kind.capitalize()}Backend")()


async def main() -> None:
    parts = sys.argv[1:]
    run = {"first": first, "session": session, "resume": resume, "bytes": stored_bytes, "gap": gap}
    source = next((Path(part) for part in parts if part.endswith(".gguf")), GGUF)
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        if "mlx" in parts:
            float32_model(models / MODEL, source)
        else:
            (models / MODEL).mkdir(parents=True)
            shutil.copy(source, models / MODEL)
        print(f"load {os.getloadavg()[0]:.0f}", flush=True)
        for part in [part for part in parts if part in run] or PARTS:
            home = Path(name) / part
            home.mkdir()
            await run[part](home, models)
        print(f"load {os.getloadavg()[0]:.0f}", flush=True)


if __name__ == "__main__":
    blas = backend_of("mlx").worker_env(THREADS) if "mlx" in sys.argv else {}
    if blas and "LD_PRELOAD" not in os.environ:  # it has to be there before the process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **blas})
    asyncio.run(main())
