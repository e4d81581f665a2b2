"""What this plugin needs of others, and what users are told when that is off."""

from __future__ import annotations

import sys

import pytest

from lmx_kernel.interfaces import PluginState
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.plugins.settings import PluginSettings

NAME = "lmstudio_api"


def status_of(settings):
    [status] = [one for one in Plugins(settings).statuses if NAME in one.name]
    return status


@pytest.mark.parametrize("disabled", ["openai_api", "responses_api", "model_folders"])
def test_it_is_off_with_a_reason_only_without_what_it_requires(disabled):
    status = status_of(PluginSettings(disabled=(disabled,)))
    if disabled == "openai_api":
        assert status.state is PluginState.FAILED
        assert "needs the plugin openai_api, which is not active" in status.reason
    else:
        assert status.state is PluginState.ACTIVE, status.reason


def test_without_the_code_of_the_other_its_name_is_told_and_no_module(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("lmx_openai", "lmx_lmstudio"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lmx_openai_api", None)  # as if it were uninstalled
    status = status_of(PluginSettings(discover=False, modules=("lmx_lmstudio_api.plugin",)))
    assert "needs the plugin openai_api, which is not active" in status.reason
