"""Writes the package of a new plugin from the templates of its kind.

A template is a file of ``templates/common`` or of ``templates/KIND`` with ``-tpl`` behind its name.
It is text for :class:`string.Template`, as its name is (where ``dot-`` stands for a dot at the
beginning, since packages leave out hidden files), with these words: ``$name`` (of the plugin, an
identifier), ``$Class`` (the same as the name of a class), ``$dashed`` (the same for the name of
the distribution), and in the common ones what :class:`Kind` says.
"""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from attrs import frozen
from packaging.version import Version

from lmx_kernel import __version__
from lmx_kernel.errors import ConflictError, InvalidRequestError

SUFFIX = "-tpl"
NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")


@frozen(kw_only=True)
class Kind:
    """A kind of plugin.

    :param summary: what such a plugin does, in a few words.
    :param entry_points: TOML of its entry points, with the words of a template.
    :param modules: further modules beside the plugin's own, without ``lmx_NAME_``.
    :param needs: distributions that it needs beside ``lmx-kernel``, or extras of that.
    :param check: a command that tries it, for the README.
    """

    summary: str
    entry_points: str = '[project.entry-points.lmx]\n$name = "lmx_$name"'
    modules: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    check: str = "lmx plugins"


KINDS = {
    "backend": Kind(
        summary="recognises models of a format, and has the engine that runs them",
        entry_points='[project.entry-points.lmx]\n$name = "lmx_$name"\n\n'
        '[project.entry-points."lmx.worker"]\n$name = "lmx_${name}_engine"',
        modules=("engine",),
        needs=("lmx-kernel[engine]",),
        check="lmx ls",
    ),
    "architecture": Kind(
        summary="the layers of a family of models, for the MLX backend",
        entry_points='[project.entry-points."lmx.mlx.architectures"]\n$name = "lmx_$name"',
        needs=("lmx-plugin-mlx",),
    ),
    "router": Kind(summary="chooses the model of a request", check="lmx plugins"),
    "surface": Kind(summary="an HTTP API"),
    "monitor": Kind(summary="samples figures, for /metrics and for listeners"),
    "source": Kind(summary="finds folders that hold models", check="lmx ls"),
    "job": Kind(summary="long work that is started, watched and stopped by id"),
    "authoriser": Kind(summary="refuses HTTP requests"),
    "listener": Kind(summary="is told every event of the kernel"),
    "format": Kind(
        summary="how a family of models writes tool calls",
        entry_points='[project.entry-points."lmx.formats"]\n$name = "lmx_$name:$Class"',
    ),
    "command": Kind(summary="a command of the command line", check="lmx $dashed --help"),
    "findings": Kind(summary="checks of the machine, for lmx doctor", check="lmx doctor"),
}


def render(kind: str, name: str) -> dict[str, str]:
    """Return the files of a new plugin, by their paths in its folder.

    :param kind: one of :data:`KINDS`.
    :param name: the plugin's name: small letters, digits, and ``-`` or ``_`` between them.
    :raises InvalidRequestError: there is no such kind, or no plugin can be called so.
    """
    if kind not in KINDS:
        raise InvalidRequestError(f"no kind of plugin is called {kind!r}; there are: {_kinds()}")
    identifier = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(identifier):
        raise InvalidRequestError(
            f"{name!r} cannot be a plugin's name: small letters and digits, with - between them"
        )
    words = _words(KINDS[kind], kind, identifier)
    root = files("lmx_kernel.plugins") / "templates"
    found: dict[str, str] = {}
    for folder in (root / "common", root / kind):
        for template, text in _templates(folder):
            path = template.removesuffix(SUFFIX).replace("dot-", ".")
            target = Template(path).substitute(words)
            found[target] = Template(text).substitute(words)
    return found


def write_package(kind: str, name: str, into: Path) -> Path:
    """Write the package of a new plugin to a folder of its own below ``into``, and return that.

    :raises InvalidRequestError: see :func:`render`.
    :raises ConflictError: the folder exists.
    """
    rendered = render(kind, name)
    folder = into / f"lmx-plugin-{name.replace('_', '-')}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConflictError(f"{folder} exists already") from None
    for path, text in rendered.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return folder


def _kinds() -> str:
    return ", ".join(KINDS)


def _words(kind: Kind, kind_name: str, name: str) -> dict[str, str]:
    version = Version(__version__)
    bounds = f">={version.major}.{version.minor},<{version.major}.{version.minor + 1}"
    words = {
        "name": name,
        "dashed": name.replace("_", "-"),
        "Class": "".join(part.capitalize() for part in name.split("_")),
    }
    needs = [f"lmx-kernel{bounds}", *kind.needs]
    modules = [f"lmx_{name}", *(f"lmx_{name}_{module}" for module in kind.modules)]
    return words | {
        "kind": kind_name,
        "summary": kind.summary,
        "entry_points": Template(kind.entry_points).substitute(words),
        "check": Template(kind.check).substitute(words),
        "dependencies": ", ".join(f'"{one}"' for one in needs),
        "modules": ", ".join(f'"{one}"' for one in modules),
    }


def _templates(folder: Traversable, prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _templates(entry, f"{path}/")
        elif path.endswith(SUFFIX):
            found.append((path, entry.read_text("utf-8")))
    return found
