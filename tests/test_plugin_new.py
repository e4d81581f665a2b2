"""`lmx plugin new` writes packages that pass `lmx plugin check` as they are, for each kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmx_kernel.cli.plugin_new import check, new
from lmx_kernel.cli.plugin_packages import _built
from lmx_kernel.errors import ConflictError, InvalidRequestError
from lmx_kernel.plugins.package_check import PackageError, check_package
from lmx_kernel.plugins.registrations import Origin
from lmx_kernel.plugins.scaffold import KINDS, render, write_package
from lmx_kernel.plugins.wheel import NotPlainError, build_wheel

NO_SCHEMATHESIS = "-p no:schemathesis"  # its plugin costs two seconds


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", NO_SCHEMATHESIS)


def unpack(wheel, site):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


def test_all_kinds_pass_their_check(tmp_path):
    """Of all kinds in one process, as `lmx plugin check` does it for one."""
    site = tmp_path / "site"
    for kind in KINDS:
        folder = write_package(kind, f"my-{kind}", tmp_path)
        unpack(build_wheel(folder, tmp_path), site)
    tests = sorted(str(path) for path in tmp_path.glob("lmx-plugin-*/tests"))
    assert len(tests) == len(KINDS) == 12
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    options += ["-k", "not imports_nothing_heavy"]  # a process each; our own plugins try it
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *options, *tests],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_new_and_check_as_commands(tmp_path, capfd, monkeypatch):
    new("monitor", "disk-space", into=tmp_path)
    folder = tmp_path / "lmx-plugin-disk-space"
    assert str(folder) in capfd.readouterr().out.replace("\n", "")
    check(folder)
    assert "passes its tests" in capfd.readouterr().out
    module = folder / "lmx_disk_space.py"
    module.write_text(module.read_text().replace("getloadavg()[0]", "getloadavg()"))
    with pytest.raises(SystemExit) as end:
        check(folder)
    assert end.value.code == 1
    assert "load_1m is a tuple" in capfd.readouterr().out


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_pip_installs_it_into_a_fresh_environment(tmp_path, kind, pip_install):
    folder = write_package(kind, f"my-{kind}", tmp_path)
    python = pip_install(folder)
    subprocess.run([python, "-P", "-m", "pytest", "-q", folder / "tests"], cwd=folder, check=True)


@pytest.mark.parametrize("name", ["", "My", "1st", "a b", "a--b", "-a", "class", "a/b", "é", "a_"])
def test_a_name_that_no_plugin_can_have_is_refused(tmp_path, name):
    with pytest.raises(InvalidRequestError, match="cannot be a plugin's name"):
        write_package("router", name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(InvalidRequestError, match="'routers'; there are: backend, architecture"):
        write_package("routers", "x", tmp_path)


def test_a_folder_that_exists_is_left_alone(tmp_path):
    folder = write_package("router", "x", tmp_path)
    (folder / "lmx_x.py").write_text("mine")
    with pytest.raises(ConflictError, match="exists already"):
        write_package("router", "x", tmp_path)
    assert (folder / "lmx_x.py").read_text() == "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_complete_and_formatted(tmp_path, kind):
    folder = write_package(kind, "two-words", tmp_path)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "pyproject.toml", ".github/workflows/check.yml"} < files
    assert not [file for file in files if "$" in (folder / file).read_text() or "$" in file]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["dependencies"][0].startswith("lmx-kernel>=0.1,<0.2")
    ruff = [sys.executable, "-m", "ruff"]
    config = Path(__file__).parent.parent / "pyproject.toml"
    for command in (["format", "--check"], ["check", "--ignore=PLC0415,I001"]):
        done = subprocess.run(
            [*ruff, *command, "--config", config, folder],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


# --- the wheel


def write(folder, pyproject, **files):
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(pyproject)
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".py").write_text(text)
    return folder


PROJECT = """
[project]
name = "Acme.Thing"
version = "1.5"
description = "A thing"
requires-python = ">=3.11"
dependencies = ["lmx-kernel>=0.1", "x; python_version < '3'"]
[project.optional-dependencies]
test = ["pytest", "y[z]; sys_platform == 'linux'"]
[project.entry-points."lmx"]
thing = "acme_thing"
[tool.setuptools]
"""


def test_a_wheel_says_what_the_project_says(tmp_path):
    lines = 'py-modules = ["acme_thing"]\npackages = ["acme"]'
    folder = write(tmp_path / "src", PROJECT + lines, acme_thing="", acme__inner="x = 1")
    unpack(build_wheel(folder, tmp_path), tmp_path / "site")
    [info] = (tmp_path / "site").glob("*.dist-info")
    found = PathDistribution(info)
    assert (found.name, found.version) == ("Acme.Thing", "1.5")
    assert found.metadata["Summary"] == "A thing"
    assert found.requires == [
        "lmx-kernel>=0.1",
        'x; python_version < "3"',
        'pytest; extra == "test"',
        'y[z]; sys_platform == "linux" and extra == "test"',
    ]
    assert [(one.group, one.name, one.value) for one in found.entry_points] == [
        ("lmx", "thing", "acme_thing")
    ]
    assert all(file.locate().exists() for file in found.files)
    assert (tmp_path / "site" / "acme" / "inner.py").read_text() == "x = 1"


def test_pip_takes_the_wheel(tmp_path):
    folder = write_package("listener", "hello", tmp_path)
    wheel = build_wheel(folder, tmp_path)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    assert (tmp_path / "site" / "lmx_hello.py").exists()


@pytest.mark.parametrize(
    ("pyproject", "why"),
    [
        ("[project", "Expected"),
        ("[project]\nname = 'x'", r"no version"),
        (PROJECT, "must list py-modules or packages"),
        (PROJECT + "packages = {find = {}}\nzip-safe = true", "and nothing else"),
        (PROJECT + "py-modules = ['gone']", "lists gone.py, which is not there"),
        ("[build-system]\nbuild-backend = 'hatchling.build'" + PROJECT, "built by hatchling"),
        (PROJECT.replace('version = "1.5"', 'version = "1"\ndynamic = ["x"]'), "dynamic fields"),
        (PROJECT.replace("lmx-kernel>=", "lmx kernel>=") + "py-modules = []", "Expected"),
    ],
)
def test_what_it_cannot_build_is_said(tmp_path, pyproject, why):
    with pytest.raises(NotPlainError, match=why):
        build_wheel(write(tmp_path / "src", pyproject), tmp_path)


def test_folders_are_installed_without_a_build_backend(tmp_path):
    """`lmx plugin install` gives pip the wheel, which remembers the folder it was built from."""
    folder = write_package("listener", "hello", tmp_path)
    other = write(tmp_path / "other", PROJECT)
    wheel = str(folder / "dist" / "lmx_plugin_hello-1.0-py3-none-any.whl")
    asked = [str(folder), "some-name", "-e", str(folder), str(other), f"{folder}[test]"]
    assert list(_built(asked)) == [wheel, *asked[1:]]
    assert Path(wheel).exists()
    noted = [
        ({"url": f"file://{wheel}", "archive_info": {}}, Origin(str(folder))),
        ({"url": f"file://{folder}", "dir_info": {}}, Origin(str(folder))),
        ({"url": f"file://{folder}", "dir_info": {"editable": True}}, Origin(str(folder), True)),
        ({"url": "file:///a/x.whl", "archive_info": {}}, Origin()),
        ({"url": "https://host/x.whl", "archive_info": {}}, Origin()),
        ({}, Origin()),
    ]
    for note, origin in noted:
        package = SimpleNamespace(read_text=lambda _, note=note: json.dumps(note))
        assert Origin.of(package) == origin, note


# --- the check


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('short = "lmx_short"', 'short = "lmx_shorter"', "the built package has no such module"),
        ("entry-points.lmx]", "entry-points.other]", "it registers nothing with LMX"),
        ('"lmx-kernel>=0.1,<0.2"', "", "must name lmx-kernel"),
    ],
)
def test_wrong_metadata_is_found_before_the_tests(tmp_path, old, new, why):
    folder = write_package("router", "short", tmp_path)
    path = folder / "pyproject.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PackageError, match=why):
        check_package(folder)


def test_a_package_without_tests_is_refused(tmp_path):
    folder = write_package("router", "short", tmp_path)
    (folder / "tests" / "test_conformance.py").unlink()
    (folder / "tests").rmdir()
    with pytest.raises(PackageError, match="does not exist"):
        check_package(folder)
    with pytest.raises(PackageError, match=r"has no pyproject\.toml"):
        check_package(tmp_path)


def test_every_template_belongs_to_a_kind():
    names = {kind: set(render(kind, "x")) for kind in KINDS}
    assert all({"lmx_x.py", "tests/test_conformance.py"} <= files for files in names.values())
