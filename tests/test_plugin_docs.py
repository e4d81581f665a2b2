"""Every listing of docs/plugins.md is that of a template, or is put into files and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lmx_kernel.plugins.scaffold import KINDS, render
from lmx_kernel.plugins.wheel import build_wheel

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "plugins.md").read_text()
SECTIONS = {
    title: dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", body, re.S))
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    if "```python\n# " in body
}


def write_section(folder, title):
    """Write the package that a section shows; what it shows no metadata of has the template's."""
    files = SECTIONS[title]
    [module] = [name for name in files if name.startswith("lmx_")]
    template = render("router", module.removeprefix("lmx_").removesuffix(".py"))
    outer = {name: template[name] for name in ("pyproject.toml", "README.md")}
    for name, text in (outer | files).items():
        path = folder / ("tests" if name.startswith("test_") else ".") / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return folder


def run_tests(folder, python, **environ):
    options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    done = subprocess.run(
        [python, "-P", "-m", "pytest", *options, "tests"],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("title", SECTIONS)
def test_the_listings_of_a_section_pass_their_own_check(tmp_path, title):
    folder, site = write_section(tmp_path / "package", title), tmp_path / "site"
    with zipfile.ZipFile(build_wheel(folder, tmp_path)) as archive:
        archive.extractall(site)
    run_tests(folder, sys.executable, PYTHONPATH=str(site))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("title", SECTIONS)
def test_pip_builds_what_a_section_shows_in_a_fresh_environment(tmp_path, title, pip_install):
    folder = write_section(tmp_path / "package", title)
    run_tests(folder, pip_install(folder))


def test_the_other_listings_are_those_of_the_templates(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from plugin_listings import LISTING, with_listings

    assert with_listings(PAGE) == PAGE, "run scripts/plugin_listings.py"
    assert {match[2] for match in LISTING.finditer(PAGE)} == set(KINDS)
    named = [name for files in SECTIONS.values() for name in files if name.endswith(".py")]
    templates = [one for one in LISTING.finditer(PAGE) if one[4].endswith(".py")]
    assert PAGE.count("\n```python\n") == len(named) + len(templates)


def test_every_kind_of_plugin_has_a_section_that_is_run():
    run = "".join(text for files in SECTIONS.values() for text in files.values())
    run += "".join(text for kind in KINDS for text in render(kind, "x").values())
    for name in re.findall(r"^\| `(lmx_\w+)\(", PAGE, re.M):
        optional = {"lmx_lifespan", "lmx_findings", "lmx_measure_memory", "lmx_requires"}
        optional |= {"lmx_open_draft_model"}
        assert name in run or name in optional, name
