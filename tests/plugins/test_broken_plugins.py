"""Nothing a plugin does stops the daemon: every broken kind, at the start and while it runs."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager

import httpx2 as httpx
import pytest
from broken_plugins import GOOD, HURT, OFF, module

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_fake_models

KINDS = {name: source for name, (source, *_) in {**OFF, **HURT}.items()} | {"good": GOOD}
NEEDS = {"newer_kernel": "Requires-Dist: lmx-kernel>=99\n"}
SHORT_S = 20.0  # far less than anything that hangs would take


def install(folder, name, source, version="1.0"):
    """Install a plugin of one module, as pip would."""
    (folder / f"third_{name}.py").write_text(module(name, source))
    info = folder / f"third_{name}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = NEEDS.get(name, "")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: third-{name}\nVersion: {version}\n{needs}"
    )
    (info / "entry_points.txt").write_text(f"[lmx]\n{name} = third_{name}\n")


def install_all(folder):
    for name, source in {**KINDS, "newer_kernel": GOOD}.items():
        install(folder, name, source)


@asynccontextmanager
async def daemon_beside(tmp_path):
    """Hold a daemon open that finds what is installed in a folder, and a client of it."""
    write_fake_models(tmp_path, {"m": FakeModel()})
    config = tmp_path / "config.toml"
    config.write_text(
        '[plugins]\nmodules = ["lmx_kernel.testing.fake"]\ntimeout_s = 2\n'
        f'[fake]\nfolder = "{tmp_path}"\n[gone]\nx = 1\n'
        "[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
    )
    async with (
        running_daemon(config, PYTHONPATH=str(tmp_path / "packages")) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=SHORT_S) as http,
    ):
        yield daemon, http


async def use(http):
    """Use what every daemon must serve, and what some of the broken plugins break."""
    assert (await http.get("/good")).json() == {"from": "good"}
    assert (await http.get("/v1/models")).json()["data"]
    body = {"model": "m", "prompt": "x", "max_tokens": 1}
    assert (await http.post("/v1/completions", json=body)).status_code == 200
    assert (await http.post("/v1/completions", json=body | {"model": "no"})).status_code == 404
    for path in ("/openapi.json", "/metrics", "/health/status", "/admin/status"):
        assert (await http.get(path)).status_code == 200, path
    for path in ("/route_raises", "/route_exits"):
        assert (await http.get(path)).status_code == 500


async def check_states(http):
    """Compare the listing with the table; figures of monitors and events take a moment."""
    async with asyncio.timeout(SHORT_S):
        while True:
            listed = {
                one["name"]: one for one in (await http.get("/admin/plugins")).json()["plugins"]
            }
            if all(listed[name]["state"] == "muted" for name in ("sample_text", "listener")):
                break
            await http.get("/v1/models")
            await http.post("/v1/completions", json={"model": "m", "prompt": "x", "max_tokens": 1})
    assert listed["good"]["state"] == "active"
    for name, (_, words) in {**OFF, "newer_kernel": ("", "lmx-kernel>=99")}.items():
        assert listed[name]["state"] == "failed", name
        assert words in listed[name]["reason"], listed[name]
    for name, (_, states, words) in HURT.items():
        assert listed[name]["state"] in states, listed[name]
        assert words in listed[name]["reason"], listed[name]
    assert listed["gguf"]["state"] == "active"


async def stop(daemon):
    daemon.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(SHORT_S):
        assert await daemon.process.wait() == 0


@pytest.mark.parametrize("when", ["at the start", "while it runs"])
async def test_every_broken_plugin_is_off_with_a_reason_and_the_rest_is_served(tmp_path, when):
    packages = tmp_path / "packages"
    packages.mkdir()
    if when == "at the start":
        install_all(packages)
    async with daemon_beside(tmp_path) as (daemon, http):
        if when == "while it runs":
            install_all(packages)
            assert (await http.post("/admin/plugins/rescan")).status_code == 200
        await use(http)
        await check_states(http)
        await stop(daemon)
    log = (tmp_path / "daemon.log").read_text()
    assert "unknown section" in log
    assert "gone" in log
