"""The docs say what the code does."""

from __future__ import annotations

import re

import attrs
import pytest

from lmx_kernel.cli.main import command_line
from lmx_kernel.hookspecs import KernelSpecs, WorkerSpecs
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


def commands(group, name="lmx"):
    """Yield every command below ``group``."""
    for part in group:
        if not part.startswith("-"):
            if group[part].default_command:
                yield f"{name} {part}"
            yield from commands(group[part], f"{name} {part}")


def test_the_readme_names_every_command(page, tmp_path, monkeypatch):
    monkeypatch.setenv("LMX_HOME", str(tmp_path))
    text = page("README.md")
    names = set(commands(command_line(["--help"])))
    own, of_plugins = {"lmx serve", "lmx key add"}, {"lmx route", "lmx pull", "lmx service install"}
    assert own | of_plugins <= names
    for name in names:
        assert re.search(rf"`{name}( [A-Z]+)?`", text), name
