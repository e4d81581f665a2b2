"""The job: a child that can be killed at any byte, and a token that nobody sees."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from attrs import define, field
from lmx_hub.kind import Downloads
from lmx_hub.settings import HubSettings

from lmx_kernel import errors
from lmx_kernel.jobs.jobs import Jobs

RNG = random.Random(2)
WEIGHTS = RNG.randbytes(4 << 20)
PARENT = """
import asyncio, sys
from pathlib import Path
from lmx_hub.kind import Downloads, DownloadSpec
from lmx_hub.settings import HubSettings

def report(done, total, note=""):
    print(int(done), flush=True)

kind = Downloads(HubSettings(folder=Path(sys.argv[1]), endpoint=sys.argv[2], reserve_bytes=0))
asyncio.run(kind.run(DownloadSpec("org/name"), report))
"""


def counts(*few_and_full):
    few, full = few_and_full
    return pytest.mark.parametrize("count", [few, pytest.param(full, marks=pytest.mark.full)])


@define
class Told:
    """What a job reports, and a way to wait for it to come far enough."""

    lines: list = field(factory=list)
    goal: int = 0
    reached: asyncio.Event = field(factory=asyncio.Event)

    def __call__(self, done, total=None, note=""):
        self.lines.append((done, total, note))
        if done >= self.goal:
            self.reached.set()


@pytest.fixture
def kind(hub, root):
    """Return a function that makes the kind of job, with some settings changed."""

    def make(**changes):
        settings = {"folder": root, "endpoint": hub.url, "reserve_bytes": 0, "wait_s": 0}
        return Downloads(HubSettings(**settings | changes))

    return make


async def kill(hub, root, kind, download):
    """Kill the child at a random place; return how many bytes it had told of."""
    told = Told(goal=RNG.randrange(len(WEIGHTS)) // 2)
    task = asyncio.ensure_future(kind.run(download("org/name"), told))
    waits = [task, asyncio.ensure_future(told.reached.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    (child,) = (child for child in psutil.Process().children() if "lmx_hub" in str(child.cmdline()))
    child.send_signal(signal.SIGKILL)
    with pytest.raises(errors.InternalError, match="killed by SIGKILL"):
        await task
    return told.lines[-1][0]


async def kill_the_daemon(hub, root, kind, download):
    goal = RNG.randrange(len(WEIGHTS)) // 2
    daemon = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(root), hub.url), stdout=subprocess.PIPE
    )
    while (done := int(await daemon.stdout.readline())) < goal:
        pass
    daemon.send_signal(signal.SIGKILL)
    await daemon.stdout.read()
    await daemon.wait()
    return done


async def pause(hub, root, kind, download):
    told = Told(goal=RNG.randrange(len(WEIGHTS)) // 2)
    task = asyncio.ensure_future(kind.run(download("org/name"), told))
    await told.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [c for c in psutil.Process().children() if "lmx_hub" in str(c.cmdline())]
    return told.lines[-1][0]


@counts(2, 20)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stop", [kill, kill_the_daemon, pause])
async def test_a_killed_download_goes_on_where_it_was(
    hub, root, kind, download, listed, stop, count
):
    hub.pause_s = 0.002
    for _ in range(count):
        hub.put("org/name", {"model.safetensors": WEIGHTS})
        hub.requests.clear()
        done = await stop(hub, root, kind(), download)
        assert listed() == {}
        await kind().run(download("org/name"), Told())
        assert listed() == {"org/name": {"model.safetensors"}}
        assert (root / "org/name/model.safetensors").read_bytes() == WEIGHTS
        first, second = hub.starts()
        assert first == 0 < done <= second
        (root / "org/name/model.safetensors").unlink()
        (root / "org/name").rmdir()


async def test_two_who_download_the_same_do_not_disturb_each_other(
    hub, root, kind, download, listed
):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    hub.pause_s = 0.002
    await asyncio.gather(*(kind().run(download("org/name"), Told()) for _ in range(2)))
    assert (root / "org/name/model.safetensors").read_bytes() == WEIGHTS
    assert listed() == {"org/name": {"model.safetensors"}}
    assert len(list((root / "org").iterdir())) == 1
    assert hub.sent == len(WEIGHTS)


async def test_discarding_leaves_nothing(hub, root, kind, download):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    hub.pause_s = 0.002
    await pause(hub, root, kind(), download)
    assert list(root.glob("org/*/*.part"))
    await kind().discard(download("org/name"))
    assert list(root.iterdir()) == []
    await kind().discard(download("org/name"))


async def test_discarding_keeps_the_model_that_is_there(hub, root, kind, download, listed):
    hub.put("org/name", {"a-Q4_0.gguf": b"4", "a-Q8_0.gguf": b"8"})
    await kind().run(download("org/name"), Told())
    await kind().discard(download("org/name"))
    await kind().discard(download("org/name", quantization="Q8_0"))
    assert listed() == {"org/name": {"a-Q4_0.gguf"}}


async def test_errors_keep_their_class(hub, kind, download):
    with pytest.raises(errors.NotFoundError, match="no model org/name"):
        await kind().run(download("org/name"), Told())
    hub.put("org/name", {"a-Q4_0.gguf": b"4"})
    with pytest.raises(errors.NotFoundError, match="there are: Q4_0") as caught:
        await kind().run(download("org/name", quantization="Q8_0"), Told())
    assert caught.value.param == "quantization"
    with pytest.raises(errors.DiskFullError):
        await kind(reserve_bytes=1 << 62).run(download("org/name"), Told())


async def test_offline_is_told(hub, kind, download, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(errors.UnavailableError, match="HF_HUB_OFFLINE") as caught:
        await kind().run(download("org/name"), Told())
    assert not caught.value.retryable
    assert hub.requests == []


async def test_the_hub_of_the_environment_is_asked(hub, kind, download, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.put("org/name", {"a-Q4_0.gguf": b"4"})
    assert (await kind(endpoint="").run(download("org/name"), Told()))["bytes"] == 1


async def test_as_a_job_it_is_paused_resumed_over_a_restart_and_cancelled(
    hub, root, kind, download, tmp_path
):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    hub.pause_s = 0.002
    changes = asyncio.Queue()

    async def nothing():
        """Nobody looks at the disk."""

    async def until(reached):
        while not reached(await changes.get()):
            pass

    def has_moved(event):
        return event.done > 0

    jobs = Jobs(tmp_path / "jobs.db", changes.put_nowait, nothing)
    await jobs.open([kind()])
    job = await jobs.start("download", download("org/name", files=("*.safetensors",)))
    await until(has_moved)
    assert (paused := await jobs.pause(job.id)).state == "paused"
    await jobs.close()

    jobs = Jobs(tmp_path / "jobs.db", changes.put_nowait, nothing)
    await jobs.open([kind()])
    await jobs.resume(job.id)
    await until(lambda event: event.state in ("done", "failed"))
    job = jobs.get(job.id)
    assert (job.done, job.total, job.unit) == (len(WEIGHTS), len(WEIGHTS), "bytes")
    assert job.result["model"] == "org/name"
    first, second = hub.starts()
    assert first == 0 < paused.done <= second

    hub.put("org/other", {"model.safetensors": WEIGHTS})
    job = await jobs.start("download", download("org/other"))
    await until(lambda event: event.id == job.id and has_moved(event))
    assert (await jobs.cancel(job.id)).state == "cancelled"
    await jobs.close()
    assert [path.name for path in (root / "org").iterdir()] == ["name"]


# --- the token -----------------------------------------------------------------------------------

CANARY = "hf_canary_5c1e"


@pytest.mark.parametrize("source", ["config", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
async def test_the_token_is_sent_and_never_told(
    hub, root, kind, download, remote, monkeypatch, capfd, source
):
    if source != "config":
        monkeypatch.setenv(source, CANARY)
    monkeypatch.setenv("HF_DEBUG", "1")
    downloads = kind(token=CANARY if source == "config" else "")
    told, failures = Told(), []
    faults = {
        "org/gated": lambda handler, _: handler.refuse(401, "GatedRepo"),
        "org/closed": lambda handler, _: handler.refuse(403),
        "org/away": lambda handler, _: handler.refuse(500),
        "org/odd": lambda handler, _: handler.send(200, b"<html>", {}),
    }
    hub.errors |= faults
    for repo in (*faults, "org/missing"):
        with pytest.raises(errors.LmxError) as caught:
            await downloads.run(download(repo), told)
        failures.append(f"{caught.value!r} {vars(caught.value)}")
    hub.put("org/name", {"model.safetensors": remote(b"w", is_lfs=False)})
    told(0, 0, str(await downloads.run(download("org/name"), told)))
    assert {headers.get("authorization") for _, _, headers in hub.requests} == {f"Bearer {CANARY}"}
    seen = "".join([*failures, str(told.lines), *capfd.readouterr(), repr(downloads.__dict__)])
    on_disk = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert CANARY not in seen
    assert CANARY.encode() not in on_disk


async def test_a_token_that_no_header_can_carry_is_not_told(hub, kind, download):
    with pytest.raises(errors.LmxError) as caught:
        await kind(token=f"{CANARY}\u2028x").run(download("org/name"), Told())
    assert "canary" not in f"{caught.value!r} {vars(caught.value)}"


async def test_the_token_is_on_no_command_line(hub, root, kind, download):
    hub.put("org/name", {"model.safetensors": WEIGHTS})
    hub.pause_s = 0.002
    told = Told(goal=1)
    task = asyncio.ensure_future(kind(token=CANARY).run(download("org/name"), told))
    await told.reached.wait()
    lines = [str(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [line for line in lines if "lmx_hub" in line]
    assert CANARY not in str(lines)


# --- the plugin ----------------------------------------------------------------------------------


def test_models_go_where_lmx_looks_for_them(monkeypatch, tmp_path):
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    assert HubSettings().folder == tmp_path / "models"
    assert HubSettings(token=CANARY).token not in repr(HubSettings(token=CANARY))


def test_the_daemon_imports_neither_the_library_nor_what_it_needs():
    code = "import sys, lmx_hub.plugin; print({'huggingface_hub', 'httpx2'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout == "set()\n"
