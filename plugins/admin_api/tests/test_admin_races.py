"""Many at once, and those who mean harm."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
from urllib.parse import quote

import pytest
from attrs import asdict

from lmx_kernel.events import LoadStarted, ModelLoaded, ModelUnloaded
from lmx_kernel.testing.fake_model import SUFFIX, FakeModel

# What each may meet, besides success: the other got there first.
OUTCOMES = {
    "load": {"ok", "unavailable", "model_unloaded", "model_not_found"},
    "unload": {"ok", "model_not_found"},
    "delete": {"ok", "conflict", "model_not_found"},
}


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.full)])
async def test_34_conflicting_calls_end_as_if_one_had_come_after_the_other(serve, tmp_path, count):
    dice = random.Random(count)
    path = tmp_path / f"m{SUFFIX}"
    written = 1
    async with serve({"m": FakeModel()}) as api:

        async def call(action):
            nonlocal written
            await asyncio.sleep(dice.random() * count / 200)
            if action == "delete":
                return await api.delete("models/m")
            if action == "write" and not path.exists():
                draft = tmp_path / "draft"  # a scan may look at any time, and sees it whole
                draft.write_text(json.dumps(asdict(FakeModel())))
                draft.rename(path)
                written += 1
                return await api.post("models/rescan")
            return await api.post(f"models/{action.replace('write', 'load')}", model="m")

        def on_event(event):
            if isinstance(event, ModelLoaded):
                assert path.exists()

        actions = dice.choices(["load", "unload", "delete", "write"], [4, 4, 2, 1], k=count)
        with api.stage.kernel.listen(on_event):
            answers = await asyncio.gather(*map(call, actions))
        assert {answer.status_code for answer in answers} <= {200, 404, 409, 503}
        audit = [line for line in api.audit() if line[0] in OUTCOMES]
        for action, target, outcome in audit:
            assert target == "m"
            assert outcome in OUTCOMES[action], action
        assert len(api.audit()) == count
        deleted = audit.count(("delete", "m", "ok"))
        assert deleted == written - path.exists()
        _check_story(api)
        status = api.stage.kernel.status()
        pids = [model.pid for model in status.models]  # none if it was deleted before any load
        assert [model.state == "ready" for model in status.models] == [*map(bool, pids)]
        assert status.memory_reserved_bytes == (FakeModel().memory_bytes if any(pids) else 0)


def _check_story(api):
    """Loads and unloads come in turn: there never were two of the model."""
    told = [e for e in api.stage.events if isinstance(e, LoadStarted | ModelLoaded | ModelUnloaded)]
    is_up = False
    for event in told:
        if isinstance(event, ModelLoaded):
            assert not is_up
            is_up = True
        elif isinstance(event, ModelUnloaded):
            is_up = False


async def test_34_loads_in_two_ways_at_once_end_in_one_of_them(serve):
    async with serve({"m": FakeModel()}) as api:
        calls = [
            api.post("models/load", model="m", parallel=1 + number % 2) for number in range(20)
        ]
        answers = await asyncio.gather(*calls)
        assert {answer.status_code for answer in answers} == {200}
        _check_story(api)
        (status,) = api.stage.kernel.status().models
        assert status.parallel in (1, 2)
        assert api.stage.kernel.status().memory_reserved_bytes == FakeModel().memory_bytes


# --- names that lead elsewhere -------------------------------------------------------------------

PIECES = ("../", "..\\", "..%2f", "%2e%2e/", "/", "//", "./", "\0", "C:\\", "~/", "｡｡/", "\u202e")
TARGETS = ("canary.txt", "m", f"m{SUFFIX}", f"kept{SUFFIX}", "etc/passwd", "config.toml", "link")


def payloads(count):
    dice = random.Random(15)
    simple = [a * n + b for a, b, n in itertools.product(PIECES, TARGETS, (1, 5))]
    mixed = ["".join(dice.choices(PIECES, k=3)) + dice.choice(TARGETS) for _ in range(count)]
    return dice.sample(simple + mixed, count)


def tree(folder):
    """Return all that lies below a folder, with a hash of each file."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.full)])
async def test_15_no_name_leads_anywhere_else(serve, tmp_path_factory, tmp_path, count):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "canary.txt").write_text("untouched")
    (outside / f"m{SUFFIX}").write_text("{}")
    (tmp_path / "link").symlink_to(outside)
    names = [*payloads(count), str(outside / "canary.txt"), str(outside / "m")]
    async with serve({"kept": FakeModel()}) as api:
        before = tree(outside) | tree(tmp_path)
        for name in names:
            answers = [
                await api.http.delete(f"/admin/models/{quote(name)}"),
                await api.http.request("DELETE", f"/admin/models/{quote(name, safe='')}"),
                await api.http.get(f"/admin/models/{quote(name, safe='')}"),
                await api.post("models/load", model=name),
                await api.post("models/estimate", model=name),
                await api.post("models/unload", model=name),
            ]
            for answer in answers:
                assert 400 <= answer.status_code < 500, name
                told = answer.text.replace(json.dumps(name)[1:-1], "").replace(name, "")
                assert str(outside) not in told, name
                assert str(tmp_path) not in told, name
        assert tree(outside) | tree(tmp_path) == before
        assert not api.stage.seen(LoadStarted)
