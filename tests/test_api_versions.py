"""What was published for a version of the API goes on working with later kernels.

``api_versions/`` has for each version the names and signatures of that time, and a package of each
kind as `lmx plugin new` wrote it then. ``python tests/test_api_versions.py`` writes those of the
present version, which is to be done once, with its first release.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lmx_kernel.api
import lmx_kernel.testing.conformance
from lmx_kernel.api import API
from lmx_kernel.plugins.scaffold import KINDS, render
from lmx_kernel.plugins.wheel import build_wheel

VERSIONS = Path(__file__).parent / "api_versions"
NAME = "kept"
KEPT = (".py", ".toml")
KIT = "lmx_kernel.testing.conformance"


def modules():
    for package in (lmx_kernel.api, lmx_kernel.testing.conformance):
        yield package.__name__
        for one in pkgutil.iter_modules(package.__path__):
            yield f"{package.__name__}.{one.name}"


def described(value):
    """Return what plugins rely on: parameters, and what a class has."""
    found = {}
    try:
        parameters = inspect.signature(value).parameters.values()
        found["parameters"] = [
            [one.name, one.kind.name, one.default is not one.empty] for one in parameters
        ]
    except (TypeError, ValueError):
        pass
    if inspect.isclass(value):
        is_enum = issubclass(value, enum.Enum)
        members = value.__members__ if is_enum else {n: getattr(value, n) for n in dir(value)}
        found["members"] = {
            name: {} if is_enum else described(member) if callable(member) else {}
            for name, member in members.items()
            if not name.startswith("_")
        }
    return found


def public_of(name):
    """Return the public names of a module of the API, or the classes of a module of the kit."""
    module = importlib.import_module(name)
    if not name.startswith(KIT):
        return {one: getattr(module, one) for one in module.__all__}
    return {
        one: value
        for one, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == name and not one.startswith("_")
    }


def record():
    """Return what there is now, by module and name. The arguments of the kit's tests are pytest's
    business.
    """
    found = {
        f"{name}:{one}": described(value)
        for name in modules()
        for one, value in sorted(public_of(name).items())
    }
    for name in found:
        if name.startswith(KIT):
            found[name] = {"members": {member: {} for member in found[name]["members"]}}
    return found


def lost(path, before, now):
    """Yield what could be relied on before and cannot be any more."""
    if "parameters" in before:
        known = {name: has_default for name, _, has_default in before["parameters"]}
        there = {name for name, *_ in now.get("parameters", ())}
        yield from (f"{path}: the parameter {name} is gone" for name in known if name not in there)
        for name, kind, has_default in now.get("parameters", ()):
            may_be_left_out = has_default or kind.startswith("VAR_")
            if known.get(name, True) and not may_be_left_out:
                yield f"{path}: the parameter {name} must be given now"
        order = [one[:2] for one in now.get("parameters", ()) if one[0] in known]
        if [one[:2] for one in before["parameters"] if one[0] in there] != order:
            yield f"{path}: the parameters have another order"
    for name, member in before.get("members", {}).items():
        if name not in now.get("members", {}):
            yield f"{path}.{name} is gone"
        else:
            yield from lost(f"{path}.{name}", member, now["members"][name])


def versions():
    return sorted(VERSIONS.glob(f"{API[0]}.*.json"))


@pytest.mark.parametrize("file", versions(), ids=lambda file: file.stem)
def test_names_and_signatures_are_those_of_the_version_or_more(file):
    now = record()
    problems = []
    for name, before in json.loads(file.read_text()).items():
        problems += lost(name, before, now[name]) if name in now else [f"{name} is gone"]
    assert not problems, "\n".join(problems)


def test_the_present_version_is_recorded():
    assert VERSIONS / f"{API[0]}.{API[1]}.json" in versions()


def test_what_breaks_a_plugin_is_noticed():
    def before(a, b=1): ...
    def more(a, b=1, c=2, *, d=None): ...
    def renamed(x, b=1): ...
    def needed(a, b=1, *, c): ...
    def without_default(a, b): ...
    def swapped(b=1, a=2): ...

    old = described(before)
    assert not [*lost("f", old, described(more))]
    for changed in (renamed, needed, without_default, swapped):
        assert [*lost("f", old, described(changed))], changed


def packages(version, only_changed):
    """Yield the kept packages of a version; or only those that `lmx plugin new` writes otherwise
    now: the others are what tests of the templates try.
    """
    for kind in KINDS:
        folder = VERSIONS / version / kind
        same = all(
            (folder / name).read_text() == text
            for name, text in render(kind, NAME).items()
            if name.endswith(KEPT) and (folder / name).exists()
        )
        if not (only_changed and same):
            yield folder


@pytest.mark.parametrize("only_changed", [True, pytest.param(False, marks=pytest.mark.full)])
@pytest.mark.parametrize("file", versions(), ids=lambda file: file.stem)
def test_packages_of_the_version_pass_their_tests(tmp_path, file, only_changed):
    for folder in packages(file.stem, only_changed):
        site = tmp_path / folder.name
        with zipfile.ZipFile(build_wheel(folder, tmp_path)) as archive:
            archive.extractall(site)
        options = ("-q", "--import-mode=importlib", "-p", "no:cacheprovider")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", *options, "-o", "asyncio_mode=auto", "tests"],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    version = ".".join(map(str, API))
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record().items())
    (VERSIONS / f"{version}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for kind in KINDS:
        for path, source in render(kind, NAME).items():
            if path.endswith(KEPT):
                target = VERSIONS / version / kind / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(source)
