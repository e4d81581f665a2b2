"""`lmx plugin install`, `upgrade` and `uninstall` with pip itself, beside a stream that goes on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import zipfile

import httpx2 as httpx
import pytest
from broken_plugins import module, surface

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

PLUGINS = ("lmx_openai_api.plugin", "lmx_admin_api.plugin")
PAGE = surface(
    "def routes(self): return [(self.prefix, Says())]\n"
    "class Says:\n    async def on_get(self, req, resp): resp.media = {says!r}\n"
)


def wheel(folder, version):
    """Write a wheel of a plugin of one module whose page says its version."""
    info = f"lmx_life-{version}.dist-info"
    source = module("life", PAGE.replace("{says!r}", repr(version)))
    path = folder / f"lmx_life-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("lmx_life.py", source)
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: lmx-life\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/entry_points.txt", "[lmx]\nlife = lmx_life\n")
        file.writestr(f"{info}/RECORD", "")
    return str(path)


@pytest.fixture
def uninstalled():
    """Uninstall the plugin in the end, whatever became of the test."""
    yield
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "uninstall", "-y"]
    subprocess.run([*pip, "lmx-life"], check=True, capture_output=True)


@pytest.mark.usefixtures("uninstalled")
async def test_a_plugin_comes_changes_and_goes_while_the_daemon_serves(tmp_path, monkeypatch):
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    write_fake_models(tmp_path, {"m": FakeModel(tokens_per_s=50)})
    config = write_config(tmp_path, PLUGINS)
    config.write_text(config.read_text().replace("discover = false\n", ""))

    async def lmx(*arguments):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lmx_kernel", "plugin", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return output.decode()

    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        body = {"model": "m", "prompt": "x", "max_tokens": 4000, "stream": True}
        async with http.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            said = await lmx("install", "-q", "--no-deps", wheel(tmp_path, "1.0"))
            assert "lmx-life 1.0: lmx life, in use now" in said
            assert (await http.get("/life")).json() == "1.0"
            said = await lmx("upgrade", wheel(tmp_path, "2.0"))
            assert "lmx-life 2.0: lmx life, in use now" in said
            assert (await http.get("/life")).json() == "2.0"
            listed = (await http.get("/admin/plugins")).json()["plugins"]
            shown = json.loads(await lmx("list", "--json"))
            assert [_without_times(one) for one in shown] == [_without_times(o) for o in listed]
            assert "version: 2.0" in await lmx("show", "life")
            assert "lmx_api_surfaces" in await lmx("trace", "life")
            assert "life 2.0 is disabled" in await lmx("disable", "life")
            assert (await http.get("/life")).status_code == 404
            assert "life 2.0 is active" in await lmx("enable", "life")
            assert "lmx-life 2.0 is uninstalled" in await lmx("uninstall", "life")
            assert (await http.get("/life")).status_code == 404
            assert "0 plugins are new" in await lmx("rescan")
            assert "no plugin is called life" in await lmx("enable", "life")
            assert "data: " in await anext(line async for line in lines if line)
        assert daemon.process.returncode is None


def _without_times(one):
    return {key: value for key, value in one.items() if key != "times"}
