"""Every listing of docs/plugins.md is that of a template, or is put into files and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lmx_kernel.plugins.scaffold import KINDS, render

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "plugins.md").read_text()
SECTIONS = {
    title: dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", body, re.S))
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    if "```python\n# " in body
}
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


def pretend_installed(folder, pyproject):
    """Write the metadata that installing a distribution would."""
    project = tomllib.loads(pyproject)["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )


@pytest.mark.parametrize("title", SECTIONS)
def test_the_listings_of_a_section_pass_their_own_check(tmp_path, title):
    files = SECTIONS[title]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text(INI)
    if "pyproject.toml" in files:
        pretend_installed(tmp_path, files["pyproject.toml"])
    path = os.pathsep.join([str(tmp_path), str(ROOT / "examples" / "lmx-plugin-tiny")])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


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
