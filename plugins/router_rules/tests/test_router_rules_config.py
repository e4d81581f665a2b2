"""What is told of a wrong config, and what is done with it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lmx_router_rules.settings import RulesSettings

from lmx_kernel.config import ConfigError
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.kernel.boot import boot
from lmx_kernel.testing.harness import running_kernel

PLUGIN = '[plugins]\ndiscover = false\nmodules = ["lmx_router_rules.plugin"]\n'
BAD = """\
[router_rules]
default = []
[router_rules.aliases]
a = ["b"]
b = ["a"]
[[router_rules.rules]]
name = "night"
models = ["m"]
hours = ["24:00-06:00"]
taks = ["code"]
[[router_rules.rules]]
name = "day"
models = []
task = ["cooking"]
min_prompt_tokens = 9
max_prompt_tokens = 3
[[router_rules.rules]]
models = ["m"]
"""


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a config with this plugin."""
    path = tmp_path / "config.toml"

    def write(text):
        path.write_text(PLUGIN + text)
        return path

    return write


def test_every_error_is_told_at_once_with_its_line_and_rule(config):
    with pytest.raises(ConfigError) as error:
        boot(config(BAD))
    told = {(p.line, p.key): p.message for p in error.value.problems}
    assert told.pop((7, "router_rules.aliases.a")) == "'a' leads back to itself"
    assert told.pop((8, "router_rules.aliases.b")) == "'b' leads back to itself"
    assert "did you mean 'task'" in told.pop((13, 'router_rules.rules[0].taks ("night")'))
    assert "HH:MM-HH:MM" in told.pop((12, 'router_rules.rules[0].hours ("night")'))
    assert "at least one model" in told.pop((16, 'router_rules.rules[1].models ("day")'))
    assert "'cooking'" in told.pop((17, 'router_rules.rules[1].task[0] ("day")'))
    assert told.pop((20, "router_rules.rules[2].name")) == "is missing"
    assert "at least one model" in told.pop((5, "router_rules.default"))
    assert not told


def test_two_rules_of_one_name_and_limits_that_cross_are_told_at_once(config):
    rule = '[[router_rules.rules]]\nname = "r"\nmodels = ["m"]\n'
    crossed = "min_prompt_tokens = 9\nmax_prompt_tokens = 3"
    with pytest.raises(ConfigError) as error:
        boot(config(f"{rule}{rule}{rule}{crossed}"))
    told = [(p.line, p.message) for p in error.value.problems]
    assert told == [
        (7, "there are several rules called 'r'"),
        (10, "there are several rules called 'r'"),
        (10, "'r': max_prompt_tokens is less than min_prompt_tokens"),
    ]


def test_a_time_that_never_comes_is_told(config):
    rule = '[[router_rules.rules]]\nname = "r"\nmodels = ["m"]\nhours = ["08:00-08:00"]'
    with pytest.raises(ConfigError, match="'08:00-08:00' is no time at all"):
        boot(config(rule))


def test_aliases_that_lead_back_in_another_case_are_told(config):
    with pytest.raises(ConfigError, match="leads back to itself"):
        boot(config('[router_rules.aliases]\na = ["B"]\nb = ["A"]'))


async def test_wrong_rules_that_are_set_at_run_time_are_a_wrong_request(tmp_path):
    async with running_kernel(tmp_path, {}, "", ("lmx_router_rules.plugin",)) as stage:
        with pytest.raises(InvalidRequestError, match="'a' names no model; 'b' names no model"):
            stage.kernel.configure({"router_rules": {"aliases": {"a": [], "b": []}}})


def test_a_reload_puts_new_rules_in_force_and_keeps_the_old_ones_if_the_new_are_wrong(config):
    booted = boot(config('[router_rules.aliases]\na = ["one"]'))
    config('[router_rules.aliases]\na = ["two"]')
    assert booted.reload() == []
    config("[router_rules.aliases]\na = []")
    with pytest.raises(ConfigError):
        booted.reload()
    assert booted.settings.get(RulesSettings).aliases == {"a": ("two",)}


def test_new_rules_count_from_the_next_request_on(desk, ask):
    desk = desk('[router_rules.aliases]\na = ["one"]', "one", "two")
    assert desk.models_for(ask(model="a")) == ("one",)
    desk.settings.replace(RulesSettings(aliases={"a": ("two",)}))
    assert desk.models_for(ask(model="a")) == ("two",)


def test_a_model_that_comes_later_is_found(desk, ask, card):
    desk = desk('[router_rules.aliases]\na = ["one", "two"]', "two")
    assert desk.models_for(ask(model="a")) == ("two",)
    desk.models.insert(0, card("one"))
    assert desk.models_for(ask(model="a")) == ("one", "two")


def test_doctor_warns_of_models_that_are_not_there(config):
    path = config('[routing]\norder = ["length"]\n[router_rules.aliases]\na = ["nowhere", "*"]')
    booted = boot(path)
    findings = booted.plugins.findings(booted.settings, [])
    assert all(finding.is_ok for finding in findings)
    texts = [finding.text for finding in findings]
    assert "warning: alias a names models that are not installed: nowhere" in texts
    assert any("not in routing.order" in text for text in texts)


def test_the_plugin_imports_no_engine(config):
    code = "import sys, lmx_router_rules.plugin; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
