"""The config: a TOML file, overridden by environment variables, structured into attrs classes.

In two stages, since plugins have sections of their own::

    document = read_config()
    first = structure(document, [plugins_section], ignored=document.tables)
    settings = structure(document, all_sections, ignored=sections_of_disabled_plugins)
    settings.get(PluginSettings)

A variable ``LMX_SECTION_KEY`` overrides ``section.key``; its value is TOML, or plain text if the
key is a string. All problems of a stage are reported at once.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
from cattrs.errors import CattrsError

from lmx_kernel.config.section import SettingsSection
from lmx_kernel.config.service_variables import service_variables
from lmx_kernel.config.strict import STRICT, Fault, entries_field, find_faults, unknown
from lmx_kernel.config.toml_lines import Key, key_lines, nearest_line, statement_ends

T = TypeVar("T")

LIVE = {"live": True}
"""Metadata of a field that may be changed while the daemon runs."""


def is_live(field: Any) -> bool:
    """Return whether a key may be changed while the daemon runs."""
    return bool(LIVE.items() <= field.metadata.items())


@attrs.frozen
class Problem:
    """A problem in the config.

    :param source: the file, or the environment variable.
    :param line: in the file, from 1; None if it belongs to no line.
    :param key: such as ``server.port``; empty if it belongs to no key.
    """

    source: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(Exception):
    """The config is invalid; ``problems`` says why, one sentence each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def one_line(self) -> str:
        """Return the problems in one line, with the file's name but not its folder."""
        places = (attrs.evolve(p, source=Path(p.source).name) for p in self.problems)
        return "; ".join(map(str, places))


class ConfigMissingError(ConfigError):
    """The file that was asked for is not there, or not yet: its disk may come later."""


@attrs.frozen(kw_only=True)
class Document:
    """A config as it was read, before it is structured.

    :param home: LMX's own folder.
    :param tables: the content of the file, without overrides by environment variables.
    :param environ: where the overrides are.
    :param ignored_variables: of the environment, left out of ``environ``: Kubernetes set them.
    """

    home: Path
    path: Path
    text: str
    tables: dict[str, Any]
    environ: Mapping[str, str]
    ignored_variables: tuple[str, ...] = ()


@attrs.frozen
class Settings:
    """The structured config. A section may be replaced while the daemon runs, so code that can use
    new values calls :meth:`get` when it needs them, and does not keep the section.

    :param home: LMX's own folder.
    """

    home: Path
    _sections: dict[type, Any]

    def get(self, cls: type[T]) -> T:
        """Return the section of this attrs class.

        :raises KeyError: there is none.
        """
        section: T = self._sections[cls]
        return section

    @property
    def models_folder(self) -> Path:
        """Where LMX keeps its own models."""
        return models_folder(self.home)

    def replace(self, section: Any) -> None:
        """Replace the section of the same class."""
        self._sections[type(section)] = section

    def adopt(self, section: SettingsSection, fresh: Any) -> list[str]:
        """Apply the keys of ``fresh`` that may change while the daemon runs, or all of them if the
        section is new.

        :returns: the keys whose values differ and were not applied.
        """
        current = self._sections.setdefault(section.cls, fresh)
        fields = [f for f in attrs.fields(section.cls) if f.init]
        differing = [f for f in fields if getattr(current, f.name) != getattr(fresh, f.name)]
        live = {f.name: getattr(fresh, f.name) for f in differing if is_live(f)}
        self.replace(attrs.evolve(current, **live))
        return [f"{section.name}.{f.name}" for f in differing if not is_live(f)]


def read_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Document:
    """Read ``path``, or else ``config.toml`` in LMX's own folder, which may be missing.

    :raises ConfigMissingError: there is no such file.
    :raises ConfigError: the file cannot be read, or is not TOML.
    """
    home, foreign = find_home(environ), service_variables(environ)
    file = path or home / "config.toml"
    text = _read_text(file, optional=path is None)
    return Document(
        home=home,
        path=file,
        text=text,
        tables=_parse(file, text),
        environ={name: value for name, value in environ.items() if name not in foreign},
        ignored_variables=tuple(sorted(foreign)),
    )


def find_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return LMX's own folder."""
    return Path(environ.get("LMX_HOME") or "~/.lmx").expanduser()


def models_folder(home: Path) -> Path:
    """Return where LMX keeps its own models, in its own folder ``home``."""
    return home / "models"


def structure(
    document: Document, sections: Iterable[SettingsSection], ignored: Collection[str] = ()
) -> Settings:
    """Structure every section into its attrs class, with overrides by environment variables.

    :param ignored: names of sections that are ignored, such as those of disabled plugins.
    :raises ConfigError: with every problem of every section.
    """
    classes = {section.name: section.cls for section in sections}
    variables = _variables(document.environ, {*classes, *ignored})
    faults: list[Fault] = [
        ((name,), unknown("section", name, classes))
        for name in document.tables
        if name not in classes and name not in ignored
    ]
    structured: dict[type, Any] = {}
    for name, cls in classes.items():
        try:
            structured[cls] = STRICT.structure(_table(document, variables, name, cls), cls)
        except (CattrsError, ValueError) as error:
            faults += find_faults(error, (name,))
    if faults:
        raise ConfigError(_problems(document, variables, faults))
    return Settings(document.home, structured)


def config_error(document: Document, faults: Iterable[Fault]) -> ConfigError:
    """Return the error for faults that were found after the config was structured.

    :param faults: keys, from the name of the section on, and what is wrong with each.
    """
    return ConfigError(_problems(document, {}, faults))


def refuse(
    document: Document, key: Key, why: str, kind: type[ConfigError] = ConfigError
) -> ConfigError:
    """Return the error for a value that has the right type and cannot be used all the same.

    :param key: such as ``("server", "tls_cert")``.
    """
    variables = _variables(document.environ, [str(key[0])])
    return kind(_problems(document, variables, [(key, why)]))


# --- the file ------------------------------------------------------------------------------------


def _read_text(file: Path, *, optional: bool) -> str:
    data = b""
    try:
        data = file.read_bytes()
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _refusal(file, data.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return ""
        kind = ConfigMissingError if isinstance(error, FileNotFoundError) else ConfigError
        raise _refusal(file, None, f"cannot be read: {error.strerror}", kind) from error


def _parse(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why, _, place = str(error).removesuffix(")").partition(" (at ")
        # The parser gives no line at the end of the document, or for a number that is too long.
        found = re.match(r"line (\d+)", place)
        lines = text.split("\n")
        line = int(found[1]) if found else min(statement_ends(lines)[-1] + 1, len(lines))
        raise _refusal(file, line, f"not valid TOML: {why}") from error


def _refusal(
    file: Path, line: int | None, why: str, kind: type[ConfigError] = ConfigError
) -> ConfigError:
    return kind([Problem(str(file), line, "", why)])


# --- the environment -----------------------------------------------------------------------------


def _variables(environ: Mapping[str, str], sections: Iterable[str]) -> dict[Key, str]:
    """Return which variable overrides which key; the longest matching section name wins."""
    variables: dict[Key, str] = {}
    for variable in environ:
        fitting = [name for name in sections if variable.startswith(f"LMX_{name.upper()}_")]
        if fitting:
            name = max(fitting, key=len)
            variables[name, variable[len(f"LMX_{name}_") :].lower()] = variable
    return variables


def _table(document: Document, variables: Mapping[Key, str], section: str, cls: type) -> Any:
    if entries_field(cls) is not None:
        return document.tables.get(section, [])
    table = document.tables.get(section, {})
    if not isinstance(table, dict):
        return table
    kinds = {field.name: field.type for field in attrs.fields(attrs.resolve_types(cls))}
    return table | {
        key: _value(document.environ[variable], kinds.get(key, Any))
        for (name, key), variable in variables.items()
        if name == section
    }


def _value(text: str, kind: Any) -> Any:
    """Return the TOML value in ``text``, or ``text`` itself if only that is of ``kind``."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return text if _fits(text, kind) and not _fits(value, kind) else value


def _fits(value: Any, kind: Any) -> bool:
    try:
        STRICT.structure([value], tuple[kind, ...])
    except CattrsError:
        return False
    return True


# --- problems ------------------------------------------------------------------------------------


def _problems(
    document: Document, variables: Mapping[Key, str], faults: Iterable[Fault]
) -> list[Problem]:
    """Return the source of each fault: variables first, then the lines of the file."""
    lines = key_lines(document.text)
    problems = []
    for key, why in faults:
        variable = variables.get(key[:2])
        line = None if variable else nearest_line(lines, key)
        name = _dotted(key) if variable else _named(document.tables, key)
        problems.append(Problem(variable or str(document.path), line, name, why))
    return sorted(problems, key=lambda problem: problem.line or 0)


def _named(tables: Any, key: Key) -> str:
    """Return a dotted key, with the names of the list entries in it."""
    names = []
    for part in key:
        try:
            tables = tables[part]
        except (KeyError, IndexError, TypeError):
            break
        if isinstance(part, int) and isinstance(tables, dict):
            names.append(tables.get("name") or tables.get("match"))
    suffix = "".join(f' ("{name}")' for name in names if isinstance(name, str) and name)
    return f"{_dotted(key)}{suffix}"


def _dotted(key: Key) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)[1:]
