"""The docs say what the code does."""

from __future__ import annotations

import re

import attrs
import pytest

from lmx_kernel.access.door import ADMIN_PATHS
from lmx_kernel.access.guesses import LONGEST_PAUSE_S
from lmx_kernel.access.keys import MIN_CHARS, MIN_DISTINCT
from lmx_kernel.cli.command_line import command_line
from lmx_kernel.hookspecs import KernelSpecs, WorkerSpecs
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.shell import OPEN_PATHS
from lmx_kernel.kernel.boot import boot
from lmx_kernel.models.model_table import REST_FIELD, ModelTable, ModelTables


@pytest.fixture
def page(request):
    """Return a function that reads a page of the docs."""
    return lambda name: (request.config.rootpath / name).read_text()


def hooks(specs):
    return [name for name in vars(specs) if name.startswith("lmx_")]


@pytest.mark.parametrize("specs", [KernelSpecs, WorkerSpecs])
def test_every_hook_says_what_an_error_does(specs):
    for name in hooks(specs):
        assert "On error:" in getattr(specs, name).__doc__, name


def test_the_page_on_plugins_has_every_hook_with_its_arguments(page):
    text = page("docs/plugins.md")
    for specs in (KernelSpecs, WorkerSpecs):
        for name in hooks(specs):
            code = getattr(specs, name).__code__
            arguments = ", ".join(code.co_varnames[1 : code.co_argcount])
            assert f"`{name}({arguments})`" in text, name


def test_the_page_on_the_config_has_every_key_and_no_other(page, tmp_path):
    (tmp_path / "config.toml").write_text("")
    text = page("docs/config.md")
    told = {
        (section, key)
        for section, body in re.findall(r"^## `\[+(\w+)\]+`(.*?)(?=^## |\Z)", text, re.M | re.S)
        for key in re.findall(r"^\| `(\w+)` \|", body, re.M)
    }
    known = {
        (section.name, field.name)
        for section in boot(tmp_path / "config.toml").sections
        for field in attrs.fields(ModelTable if section.cls is ModelTables else section.cls)
        if field.name != REST_FIELD
    }
    assert told == known


def test_the_page_on_proxies_names_keys_that_there_are(page, tmp_path):
    text, config = page("docs/proxy.md"), page("docs/config.md")
    (tmp_path / "config.toml").write_text("")
    sections = {section.name: section.cls for section in boot(tmp_path / "config.toml").sections}
    named = {tuple(name.split(".")) for name in re.findall(r"`((?:\w+)\.(?:\w+))`", text)}
    assert len(named) > 6
    for section, key in named:
        assert key in attrs.fields_dict(sections[section]), (section, key)
        assert f"| `{key}` |" in config
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", text, re.S)):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        boot(file)


def test_the_page_on_proxies_says_what_the_server_does(page):
    text, server = page("docs/proxy.md"), ServerSettings()
    assert f"{server.max_body_bytes >> 20} MiB" in text
    assert f"client_max_body_size {server.max_body_bytes >> 20}m;" in text
    assert f"max_size {server.max_body_bytes >> 20}MB" in text
    assert f"({server.keep_alive_s:g} s)" in text
    idle = [int(found) for found in re.findall(r"keepalive(?:_timeout)? (\d+)s", text)]
    assert len(idle) == 2
    assert max(idle) < server.keep_alive_s
    assert f"at least {MIN_CHARS} characters, {MIN_DISTINCT} of them different" in text
    assert f"up to {LONGEST_PAUSE_S:g} seconds" in text
    for path in OPEN_PATHS | ADMIN_PATHS:
        assert f"`{path}`" in text


@pytest.mark.parametrize("language", ["nginx", "caddy"])
def test_the_configs_of_proxies_are_whole(page, language):
    [block] = re.findall(rf"```{language}\n(.*?)```", page("docs/proxy.md"), re.S)
    lines = [line.partition(" #")[0].strip() for line in block.split("\n")]
    assert block.count("{") == block.count("}") > 2
    if language == "nginx":
        assert all(line.endswith((";", "{", "}")) for line in lines if line)


def commands(group, name="lmx"):
    """Yield every command below ``group``."""
    for part in group:
        if not part.startswith("-"):
            if group[part].default_command:
                yield f"{name} {part}"
            yield from commands(group[part], f"{name} {part}")


def test_the_readme_and_the_page_of_lms_name_every_command(page, tmp_path, monkeypatch):
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    text = page("README.md") + page("docs/lmstudio.md")
    words = [word for word in command_line(["--help"]) if not word.startswith("-")]
    names = set(commands({word: command_line([word])[word] for word in words}))
    own, of_plugins = {"lmx serve", "lmx key add"}, {"lmx route", "lmx pull", "lmx service install"}
    assert own | of_plugins <= names
    for name in names:
        assert re.search(rf"`{name}( [A-Z]+)*`", text), name
