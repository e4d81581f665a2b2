"""The package as the kernel and its users meet it."""

import pytest
from lmx_lmstudio_api import plugin
from lmx_lmstudio_api.settings import LMStudioSettings

from lmx_kernel.http.app import build_app
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.testing.stub_kernel import make_health


def test_the_section_of_the_config():
    (section,) = plugin.lmx_settings()
    assert (section.name, section.cls()) == ("lmstudio_api", LMStudioSettings(heartbeat_s=10))
    with pytest.raises(ValueError, match="heartbeat_s"):
        LMStudioSettings(heartbeat_s=0)


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
