"""What plugins cost: new packages and their checks, an upgrade under load, broken ones, commands.

usage: python bench/plugins.py [new|upgrade|broken|commands ...]
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from attrs import frozen
from common import Client, chat, head, median, row, timed_stream

from lmx_kernel.plugins.scaffold import KINDS
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

TESTS = Path(__file__).parent.parent / "tests" / "plugins"
BROKEN, STARTS = 15, 3
STREAMS, TOKENS, TOKENS_PER_S = 8, 600, 50
SURFACES = ("lmx_openai_api.plugin", "lmx_admin_api.plugin")
EDITED = """
from lmx_kernel.api import hookimpl


class Page:
    async def on_get(self, req, resp):
        resp.media = {"edition": EDITION}


class Edited:
    name, prefix, scope = "edited", "/edited", ""

    def routes(self):
        return [("/edited", Page())]

    def operations(self):
        return []

    def render_error(self, error):
        return {"error": error.message}

    def example(self, url, model):
        return ""


@hookimpl
def lmx_api_surfaces(kernel):
    return [Edited()]
"""
COMMANDS = (
    "--version", "--help", "staus", "key list", "ls", "ps", "plugin list", "plugin show admin_api",
    "plugin rescan", "status", "pull --help", "route hello", "service status", "lms ps",
    "convert --help", "logs", "cache",
)  # fmt: skip
LOADS_ALL = ("config check", "doctor", "ls --json", "key add x --scope admin")


@frozen
class Cost:
    """What a command took."""

    status: int
    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.wall_s:.2f} s, {self.cpu_s:.2f} s of CPU time"


async def main() -> None:
    wanted = sys.argv[1:] or ("new", "upgrade", "broken", "commands")
    head(f"Plugins (fake backend, load {os.getloadavg()[0]:.0f})")
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            await {"new": new, "upgrade": upgrade, "broken": broken, "commands": commands}[name](
                Path(folder)
            )


def lmx(*words: str, env: Mapping[str, str]) -> Cost:
    """Run a command and wait for it."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lmx_kernel", *words],
        env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    took_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(done.returncode, took_s, cpu_s)


def daemon_cpu_s(pid: int) -> float:
    """Return the CPU time of a process."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def new(folder: Path) -> None:
    """Write a package of each kind and check it."""
    env = {"LMX_HOME": str(folder)}
    for kind in KINDS:
        wrote = lmx("plugin", "new", kind, f"my-{kind}", "--into", str(folder), env=env)
        checked = lmx("plugin", "check", str(folder / f"lmx-plugin-my-{kind}"), env=env)
        assert (wrote.status, checked.status) == (0, 0), kind
        total_s = wrote.wall_s + checked.wall_s
        goal = "60 s; the check 20 s" if kind == "architecture" else "60 s; the check 10 s"
        row(f"`new` and a green `check`: {kind}", f"{total_s:.1f} s; the check {checked}", goal)


async def upgrade(folder: Path) -> None:
    """Edit a plugin's code and upgrade it, while streams run."""
    site, module = folder / "site", folder / "site" / "lmx_edited.py"
    info = site / "lmx_plugin_edited-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lmx-plugin-edited\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lmx]\nedited = lmx_edited\n")
    (info / "direct_url.json").write_text(
        f'{{"url": "file://{site}", "dir_info": {{"editable": true}}}}'
    )
    module.write_text(f"EDITION = 1\n{EDITED}")
    write_fake_models(folder, {"fake": FakeModel(tokens_per_s=TOKENS_PER_S)})
    config = write_config(folder, SURFACES)
    config.write_text(config.read_text().replace("discover = false", "discover = true"))
    config.write_text(config.read_text().replace(", ".join(f'"{one}"' for one in SURFACES), ""))
    env = {"PYTHONPATH": str(site), "LMX_HOME": str(folder)}
    async with running_daemon(config, PYTHONPATH=str(site)) as daemon:
        asked = [timed_stream(daemon.url, chat("fake", "hi", TOKENS)) for _ in range(STREAMS)]
        streams = [asyncio.ensure_future(one) for one in asked]
        client = Client(daemon.url)
        while b'"running":8' not in await client.get("/admin/status"):
            await asyncio.sleep(0.1)
        module.write_text(f"EDITION = 2\n{EDITED}")
        began = time.perf_counter()
        cost = await asyncio.to_thread(lmx, "plugin", "upgrade", "edited", env=env)
        answer = await client.get("/edited")
        took_s = time.perf_counter() - began
        assert cost.status == 0
        assert b"2" in answer, answer
        row("an edit is served after `lmx plugin upgrade`", f"{took_s:.2f} s ({cost})", "3 s")
        module.write_text(f"EDITION = 33\n{EDITED}")
        before, began = daemon_cpu_s(daemon.process.pid), time.perf_counter()
        await client.post("/admin/plugins/edited/reload", {})
        assert b"33" in await client.get("/edited")
        took_s, cpu_s = time.perf_counter() - began, daemon_cpu_s(daemon.process.pid) - before
        row("the daemon's part of it", f"{took_s:.2f} s, {cpu_s:.2f} s of CPU time, streams too")
        done = await asyncio.gather(*streams)
    whole = sum(len(one.times) == TOKENS and not one.error for one in done)
    gap_s = max(max(one.gaps) for one in done)
    row("8 streams beside it", f"{whole} whole; the longest gap {gap_s:.2f} s", "8, undisturbed")


async def broken(folder: Path) -> None:
    """Start the daemon with and without broken plugins, in turns."""
    sys.path.insert(0, str(TESTS))
    from broken_plugins import OFF, module  # noqa: PLC0415 - of the tests

    names = [*OFF][:BROKEN]
    for name in names:
        (folder / f"{name}.py").write_text(module(name, OFF[name][0]))
    hanging = [name for name in names if "hang" in name]
    assert hanging
    some: dict[str, Sequence[str]] = {"none": (), f"{BROKEN}": names, "those that hang": hanging}
    times: dict[str, list[float]] = {kind: [] for kind in some}
    for number in range(STARTS):
        for kind, chosen in some.items():
            home = folder / f"{kind} {number}"
            home.mkdir()
            config = write_config(home, (*SURFACES, *chosen))
            began = time.perf_counter()
            async with running_daemon(config, PYTHONPATH=str(folder)):
                times[kind].append(time.perf_counter() - began)
    for kind, values in times.items():
        more_s = median(values) - median(times["none"])
        text = f"{median(values):.2f} s (least {min(values):.2f}); {more_s:+.2f} s"
        row(f"start with broken plugins: {kind}", text, "+0.5 s")


async def commands(folder: Path) -> None:
    """Run commands beside a daemon that has all installed plugins."""
    config = folder / "config.toml"
    config.write_text("")
    env = {"LMX_HOME": str(folder)}
    async with running_daemon(config):
        lmx("--help", env=env)  # writes down which plugin has which command
        for line in (*COMMANDS, *LOADS_ALL):
            costs = [await asyncio.to_thread(lmx, *line.split(), env=env) for _ in range(3)]
            least = min(costs, key=lambda one: one.cpu_s)
            goal = "loads all plugins" if line in LOADS_ALL else "0.5 s"
            row(f"`lmx {line}`", f"{least} (exit {least.status})", goal)


if __name__ == "__main__":
    asyncio.run(main())
