"""The package as the kernel and its users meet it."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from lmx_lmstudio_api import plugin
from lmx_lmstudio_api.settings import LMStudioSettings

from lmx_kernel.hookspecs import GROUP
from lmx_kernel.http.app import build_app
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.testing.stub_kernel import make_health


def test_the_entry_point_leads_to_the_hooks():
    (entry,) = entry_points(group=GROUP, name="lmstudio_api")
    assert entry.load() is plugin


def test_the_section_of_the_config():
    (section,) = plugin.lmx_settings()
    assert (section.name, section.cls()) == ("lmstudio_api", LMStudioSettings(heartbeat_s=10))
    with pytest.raises(ValueError, match="heartbeat_s"):
        LMStudioSettings(heartbeat_s=0)


def test_every_route_is_documented(kernel):
    for surface in plugin.lmx_api_surfaces(kernel):
        routes = dict(surface.routes())
        assert {operation.path for operation in surface.operations()} == routes.keys()
        for operation in surface.operations():
            assert hasattr(routes[operation.path], f"on_{operation.method.lower()}")


def test_importing_it_imports_no_engine():
    code = "import sys, lmx_lmstudio_api.plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "llama_cpp", "mlx"} & set(done.stdout.split())


def test_changes_need_the_scope_admin(kernel):
    table = SurfaceTable(plugin.lmx_api_surfaces(kernel))
    scopes = {
        "/api/v0/models": "inference",
        "/api/v1/models": "inference",
        "/api/v1/chat": "inference",
        "/api/v1/models/load": "admin",
        "/api/v1/models/unload": "admin",
        "/api/v1/models/download": "admin",
        "/api/v1/models/download/status/x": "admin",
    }
    assert {path: table.owner(path).scope for path in scopes} == scopes
    build_app(table.surfaces, make_health())  # no two have the same path
