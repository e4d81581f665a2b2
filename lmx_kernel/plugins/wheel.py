"""Builds the wheel of a pure Python package from its pyproject.toml, without a build backend, so
that a plugin's folder can be checked and installed without a network.

The format is that of the Python packaging specifications "Binary distribution format", "Core
metadata" and "Recording installed projects".
"""

from __future__ import annotations

import base64
import hashlib
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

BACKEND = "setuptools.build_meta"
FOREIGN = ("setup.py", "setup.cfg")
UNDERSTOOD = {"py-modules", "packages"}
WHEEL = "Wheel-Version: 1.0\nGenerator: lmx\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class NotPlainError(Exception):
    """The package needs its own build backend, or its pyproject.toml is wrong; the message says
    why.
    """


def read_pyproject(folder: Path) -> dict[str, Any]:
    """Return what ``folder/pyproject.toml`` says.

    :raises NotPlainError: it is missing, or is not TOML.
    """
    try:
        return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    except FileNotFoundError:
        raise NotPlainError(f"{folder} has no pyproject.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NotPlainError(f"{folder / 'pyproject.toml'}: {error}") from None


def build_wheel(folder: Path, into: Path) -> Path:
    """Build the wheel of the package in ``folder`` and return its path.

    Understands a static ``[project]`` table, and ``py-modules`` and ``packages`` of
    ``[tool.setuptools]``.

    :param into: the folder that the wheel is written to; made if it does not exist.
    :raises NotPlainError: the package needs more than that.
    """
    document = read_pyproject(folder)
    _check_plain(folder, document)
    project = document["project"]
    name = canonicalize_name(project["name"]).replace("-", "_")
    stem = f"{name}-{project['version']}"
    files = dict(_sources(folder, document["tool"]["setuptools"]))
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = _metadata(folder, project).encode()
    files[f"{info}/WHEEL"] = WHEEL.encode()
    files[f"{info}/entry_points.txt"] = _entry_points(project).encode()
    record = f"{info}/RECORD"
    lines = [f"{path},{_hash(data)},{len(data)}" for path, data in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    into.mkdir(exist_ok=True)
    wheel = into / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return wheel


def _check_plain(folder: Path, document: Mapping[str, Any]) -> None:
    project = document.get("project", {})
    settings = document.get("tool", {}).get("setuptools", {})
    backend = document.get("build-system", {}).get("build-backend", BACKEND)
    missing = [key for key in ("name", "version") if not isinstance(project.get(key), str)]
    problems = (
        (backend != BACKEND, f"it is built by {backend}"),
        (bool(project.get("dynamic")), "its [project] table has dynamic fields"),
        (bool(missing), f"its [project] table has no {' and no '.join(missing)}"),
        (any((folder / one).exists() for one in FOREIGN), "it has a setup.py or setup.cfg"),
        (
            not settings or not settings.keys() <= UNDERSTOOD,
            "[tool.setuptools] must list py-modules or packages, and nothing else",
        ),
    )
    for is_so, why in problems:
        if is_so:
            raise NotPlainError(f"{folder}: {why}")


def _sources(folder: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the listed modules and packages.

    :raises NotPlainError: one of them does not exist.
    """
    found: list[Path] = []
    for module in settings.get("py-modules", ()):
        found.append(folder / f"{module.replace('.', '/')}.py")
    for package in settings.get("packages", ()):
        root = folder / package.replace(".", "/")
        inside = [path for path in sorted(root.glob("*")) if path.is_file()]
        found += [path for path in inside if path.suffix != ".pyc"] or [root / "__init__.py"]
    for path in found:
        try:
            yield path.relative_to(folder).as_posix(), path.read_bytes()
        except FileNotFoundError:
            name = path.relative_to(folder).as_posix()
            raise NotPlainError(
                f"{folder}: [tool.setuptools] lists {name}, which is not there"
            ) from (None)


def _metadata(folder: Path, project: Mapping[str, Any]) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    if summary := project.get("description"):
        lines.append(f"Summary: {summary}")
    if python := project.get("requires-python"):
        lines.append(f"Requires-Python: {python}")
    extras = project.get("optional-dependencies", {})
    try:
        needed = [str(Requirement(text)) for text in project.get("dependencies", ())]
        needed += [_of_extra(text, extra) for extra in extras for text in extras[extra]]
    except InvalidRequirement as error:
        raise NotPlainError(f"{folder / 'pyproject.toml'}: {error}") from None
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {text}" for text in needed]
    return "\n".join([*lines, ""])


def _of_extra(text: str, extra: str) -> str:
    requirement = Requirement(text)
    marker = f'extra == "{extra}"'
    if requirement.marker is not None:
        marker = f"({requirement.marker}) and {marker}"
    requirement.marker = Marker(marker)
    return str(requirement)


def _entry_points(project: Mapping[str, Any]) -> str:
    groups = project.get("entry-points", {})
    return "\n".join(
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), "")
    )


def _hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest}"
