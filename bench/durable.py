"""Background answers while the whole daemon is killed again and again.

usage: python bench/durable.py [fake] [gguf]      (default: both; gguf is the demo model)
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from common import Client, head, median, row

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

KILLS, ANSWERS = 20, 4
SURFACE = "stored_surface"
SURFACE_FOLDER = Path(__file__).parent.parent / "tests" / "stored"
# A daemon that was killed often starts in safe mode, which loads no other plugins.
REQUIRED = {"fake": ["lmx_kernel.testing.fake", SURFACE], "gguf": [SURFACE]}
MODELS = {"fake": "m", "gguf": "smollm2-135m-instruct"}
TOKENS = {"fake": 2000, "gguf": 400}
FILES = Path("~/.lmx/models").expanduser()


@define
class Answers:
    """The answers of one run, as they are read bit by bit."""

    name: str
    model: str
    max_tokens: int
    events: list[list[dict[str, Any]]] = field(factory=lambda: [[] for _ in range(ANSWERS)])
    outcomes: list[str | None] = field(factory=lambda: [None] * ANSWERS)

    @property
    def total(self) -> int:
        return sum(map(len, self.events))

    def joined(self, number: int, key: str) -> list[Any]:
        """Return a list that is spread over the events of one answer."""
        return [one for event in self.events[number] for one in event.get(key, ())]

    async def start(self, url: str) -> None:
        for number in range(ANSWERS):
            query = f"model={self.model}&greedy=true&text=Tell+me+story+number+{number}."
            path = f"/stored/{self.name}{number}?{query}&max_tokens={self.max_tokens}"
            assert await Client(url).post(path, {}) == b"{}"

    async def read(self, url: str, more: float = float("inf")) -> None:
        """Read until there are so many more events, or all is said."""
        until, client = self.total + more, Client(url)
        while self.total < until and not all(self.outcomes):
            for number, events in enumerate(self.events):
                path = f"/stored/{self.name}{number}?first={len(events)}"
                answer = json.loads(await client.get(path))
                events.extend(answer["events"])
                self.outcomes[number] = answer["outcome"]


def fake(folder: Path) -> Path:
    write_fake_models(folder, {"m": FakeModel(tokens_per_s=40, answer_tokens=2000)})
    return write_config(folder, (SURFACE,))


def gguf(folder: Path) -> Path:
    config = folder / "config.toml"
    config.write_text(f'[plugins]\nmodules = ["{SURFACE}"]\n[model_folders]\npaths = ["{FILES}"]\n')
    return config


SECTIONS: dict[str, Callable[[Path], Path]] = {"fake": fake, "gguf": gguf}


async def measure(kind: str, config: Path) -> None:
    env = {"PYTHONPATH": str(SURFACE_FOLDER), "LMX_PLUGINS_REQUIRED": json.dumps(REQUIRED[kind])}
    calm, killed, again = (
        Answers(name, MODELS[kind], TOKENS[kind]) for name in ("calm", "killed", "again")
    )
    chance, kills = random.Random(1), 0
    async with running_daemon(config, **env) as daemon:
        await calm.start(daemon.url)
        await calm.read(daemon.url)
    while not all(killed.outcomes):
        async with running_daemon(config, **env) as daemon:
            if kills == 0:
                await killed.start(daemon.url)
            most = ANSWERS * killed.max_tokens // KILLS  # so that it is not all said too early
            await killed.read(daemon.url, chance.randint(1, most) if kills < KILLS else 1e9)
            if kills < KILLS and not all(killed.outcomes):
                daemon.process.kill()
                kills += 1
    again.name = killed.name
    async with running_daemon(config, **env) as daemon:
        await again.read(daemon.url)
    report(kind, kills, calm, killed, again)


def report(kind: str, kills: int, calm: Answers, killed: Answers, again: Answers) -> None:
    head(f"Durable answers ({kind}, greedy), {kills} SIGKILLs of the daemon")
    complete = sum(outcome == "ok" for outcome in killed.outcomes)
    once = sum(
        one == other and [event["number"] for event in one] == list(range(len(one)))
        for one, other in zip(killed.events, again.events, strict=True)
    )
    outcomes = ", ".join(map(str, killed.outcomes))
    row("complete", f"{complete} of {ANSWERS} ({outcomes})", f"{ANSWERS}")
    row("every event read once, in order", f"{once} of {ANSWERS}", f"{ANSWERS}")
    for number in range(ANSWERS):
        row(
            f"answer {number}, to an undisturbed run",
            difference(calm, killed, number),
            "equal, or a near-tie",
        )


def difference(calm: Answers, killed: Answers, number: int) -> str:
    """Return where two runs of an answer part, and how likely the next token was there."""
    pairs = zip(calm.joined(number, "tokens"), killed.joined(number, "tokens"), strict=False)
    first = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    if first is None:
        lengths = {len(run.joined(number, "tokens")) for run in (calm, killed)}
        return "equal" if len(lengths) == 1 else f"one ends early: {lengths}"
    margins = calm.joined(number, "margins")
    usual = median(margins)
    return f"equal up to token {first}: {margins[first]:.3f} in log-odds there, median {usual:.2f}"


async def main() -> None:
    for kind in sys.argv[1:] or list(SECTIONS):
        with tempfile.TemporaryDirectory() as name:
            await measure(kind, SECTIONS[kind](Path(name)))


if __name__ == "__main__":
    asyncio.run(main())
