"""Checks the package of a plugin: builds it, looks at what it registers, and runs its tests on what
was built, in a fresh process.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lmx_kernel.plugins.api_version import API_GROUP
from lmx_kernel.plugins.wheel import NotPlainError, build_wheel, read_pyproject

OWN = "lmx-"
TEST_MODULES = ("pytest", "pytest_asyncio", "httpx2")


class PackageError(Exception):
    """The package cannot be built or tested; the message says why."""


def check_package(folder: Path) -> int:
    """Build, look at, and test the package in ``folder``; the tests write to standard output.

    :returns: the exit status of pytest: 0 if all tests passed.
    :raises PackageError: it did not come to the tests.
    """
    missing = [name for name in TEST_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise PackageError(
            f"the tests need {', '.join(missing)}: "
            f"{sys.executable} -m pip install 'lmx-kernel[kit]'"
        )
    with TemporaryDirectory(prefix="lmx-check-") as temporary:
        site = Path(temporary, "site")
        with zipfile.ZipFile(_build(folder, Path(temporary))) as wheel:
            wheel.extractall(site)
        if problems := list(problems_of(read_pyproject(folder).get("project", {}), site)):
            raise PackageError("; ".join(problems))
        return _run_tests(folder, site)


def problems_of(project: dict[str, Any], site: Path) -> Iterator[str]:
    """Yield what is wrong with the metadata of a plugin.

    :param project: the table ``[project]``.
    :param site: the folder that the built package was unpacked to.
    """
    groups = project.get("entry-points", {})
    own = {group: groups[group] for group in groups if f"{group}.".startswith("lmx.")}
    own.pop(API_GROUP, None)
    if not own:
        yield "it registers nothing with LMX: there are no entry points in a group lmx"
    for group, entries in own.items():
        for name, value in entries.items():
            path = site / value.partition(":")[0].strip().replace(".", "/")
            if not path.with_suffix(".py").exists() and not (path / "__init__.py").exists():
                yield f"{group} {name} = {value}: the built package has no such module"
    names = [canonicalize_name(Requirement(one).name) for one in project.get("dependencies", ())]
    if not any(name.startswith(OWN) for name in names):
        yield "its dependencies must name lmx-kernel, or pip may change what LMX itself needs"


def _build(folder: Path, into: Path) -> Path:
    try:
        return build_wheel(folder, into)
    except NotPlainError as error:
        if not (folder / "pyproject.toml").exists():
            raise PackageError(str(error)) from None
        reason = str(error)
    from lmx_kernel.processes.child import module_command  # noqa: PLC0415 - takes long

    pip = [*module_command("pip"), "--disable-pip-version-check", "wheel", "--no-deps"]
    done = subprocess.run(  # noqa: S603 - what the user asked for
        [*pip, "--quiet", "--wheel-dir", str(into), str(folder)], check=False
    )
    found = list(into.glob("*.whl"))
    if done.returncode or len(found) != 1:
        raise PackageError(f"LMX cannot build it ({reason}), and pip could not either")
    return found[0]


def _run_tests(folder: Path, site: Path) -> int:
    from lmx_kernel.processes.child import module_command  # noqa: PLC0415 - takes long

    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    options = ("-q", "--import-mode=importlib", "-p", "no:cacheprovider")
    tests = folder / "tests"
    if not tests.is_dir():
        raise PackageError(f"{tests} does not exist: a package without tests cannot be checked")
    sys.stdout.flush()
    done = subprocess.run(  # noqa: S603 - the author's own tests
        [*module_command("pytest"), *options, "tests"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        check=False,
    )
    return done.returncode
