"""The config: a TOML file, overridden from the environment, structured into attrs classes.

In two stages, because plugins bring sections of their own::

    document = read_config()
    first = structure(document, [plugins_section], ignored=document.tables)
    settings = structure(document, all_sections, ignored=sections_of_disabled_plugins)
    settings.get(PluginSettings)

A variable ``LMX_SECTION_KEY`` overrides ``section.key``; its value is TOML, or plain text where the
key takes text. All problems of a stage are reported at once.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
from cattrs import AttributeValidationNote, Converter, IterableValidationNote, override
from cattrs.cols import is_mapping, list_structure_factory, mapping_structure_factory
from cattrs.errors import BaseValidationError, CattrsError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from lmx_kernel.interfaces import SettingsSection

T = TypeVar("T")
Key = tuple[str | int, ...]
Fault = tuple[Key, str]
Hook = Callable[[Any, Any], Any]


@attrs.frozen
class Problem:
    """One thing that is wrong with the config.

    :param source: the file, or the environment variable.
    :param line: in the file, from 1; None where no line is to blame.
    :param key: such as ``server.port``; empty where no key is to blame.
    """

    source: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(Exception):
    """The config cannot be used; ``problems`` says why, one sentence each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@attrs.frozen(kw_only=True)
class Document:
    """A config as it was read, before anything in it is understood.

    :param home: LMX's own folder.
    :param tables: what the file says, without the environment's overrides.
    """

    home: Path
    path: Path
    text: str
    tables: dict[str, Any]
    environ: Mapping[str, str]


@attrs.frozen
class Settings:
    """The config, understood.

    :param home: LMX's own folder.
    """

    home: Path
    _sections: Mapping[type, Any]

    def get(self, cls: type[T]) -> T:
        """Return the section of this attrs class.

        :raises KeyError: no section has it.
        """
        section: T = self._sections[cls]
        return section

    __getitem__ = get


def read_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Document:
    """Read ``path``, or else ``config.toml`` in LMX's own folder, which may be missing.

    :raises ConfigError: the file cannot be read, or is not TOML.
    """
    home = Path(environ.get("LMX_HOME") or "~/.lmx").expanduser()
    file = path or home / "config.toml"
    text = _read_text(file, optional=path is None)
    return Document(home=home, path=file, text=text, tables=_parse(file, text), environ=environ)


def structure(
    document: Document, sections: Iterable[SettingsSection], ignored: Collection[str] = ()
) -> Settings:
    """Turn every section into its attrs class, with the environment's overrides.

    :param ignored: names of sections that are passed over, such as those of disabled plugins.
    :raises ConfigError: with every problem of every section.
    """
    classes = {section.name: section.cls for section in sections}
    variables = _variables(document.environ, {*classes, *ignored})
    faults: list[Fault] = [
        ((name,), _unknown("section", name, classes))
        for name in document.tables
        if name not in classes and name not in ignored
    ]
    structured: dict[type, Any] = {}
    for name, cls in classes.items():
        try:
            structured[cls] = _STRICT.structure(_table(document, variables, name, cls), cls)
        except (CattrsError, ValueError) as error:
            faults += _leaves(error, (name,))
    if faults:
        raise ConfigError(_problems(document, variables, faults))
    return Settings(document.home, structured)


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
        raise _refusal(file, None, f"cannot be read: {error.strerror}") from error


def _parse(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why, _, place = str(error).removesuffix(")").partition(" (at ")
        # No line is told at the end of the document, or for a number that is too long.
        told = re.match(r"line (\d+)", place)
        lines = text.split("\n")
        line = int(told[1]) if told else min(_statement_ends(lines)[-1] + 1, len(lines))
        raise _refusal(file, line, f"not valid TOML: {why}") from error


def _refusal(file: Path, line: int | None, why: str) -> ConfigError:
    return ConfigError([Problem(str(file), line, "", why)])


def _statement_ends(lines: Sequence[str]) -> list[int]:
    """Return 0 and after how many lines each statement ends.

    A statement fills whole lines and is a document of its own, so the first lines that parse are
    one: all knowledge of the syntax stays in its parser.
    """
    ends = [0]
    for end in range(1, len(lines) + 1):
        with suppress(ValueError, RecursionError):
            tomllib.loads("\n".join(lines[ends[-1] : end]))
            ends.append(end)
    return ends


def _key_lines(text: str) -> dict[Key, int]:
    """Return where the statement starts that first names each key. ``text`` is valid."""
    lines = text.split("\n")
    found: dict[Key, int] = {}
    sizes: Counter[Key] = Counter()
    table: Key = ()
    for start, end in pairwise(_statement_ends(lines)):
        value = tomllib.loads("\n".join(lines[start:end]))
        if lines[start].lstrip().startswith("["):
            table, value = _open_table(value, sizes), {}
        for key in _keys(value, table):
            for length in range(1, len(key) + 1):
                found.setdefault(key[:length], start + 1)
    return found


def _open_table(header: Any, sizes: Counter[Key]) -> Key:
    """Return the key of the table that a parsed header opens, counting arrays in ``sizes``."""
    key: Key = ()
    while header:
        ((part, header),) = header.items()
        key = (*key, part)
        if isinstance(header, list):
            sizes[key] += 1
            header = header[0]
        if sizes[key]:
            key = (*key, sizes[key] - 1)
    return key


def _keys(value: Any, key: Key) -> Iterator[Key]:
    yield key
    inner = enumerate(value) if isinstance(value, list) else ()
    for part, item in value.items() if isinstance(value, dict) else inner:
        yield from _keys(item, (*key, part))


# --- the environment -----------------------------------------------------------------------------


def _variables(environ: Mapping[str, str], sections: Iterable[str]) -> dict[Key, str]:
    """Return which variable overrides which key; the longest section name that fits wins."""
    variables: dict[Key, str] = {}
    for variable in environ:
        fitting = [name for name in sections if variable.startswith(f"LMX_{name.upper()}_")]
        if fitting:
            name = max(fitting, key=len)
            variables[name, variable[len(f"LMX_{name}_") :].lower()] = variable
    return variables


def _table(document: Document, variables: Mapping[Key, str], section: str, cls: type) -> Any:
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
    """Return the TOML value in ``text``, or ``text`` itself where only that is of ``kind``."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return text if _fits(text, kind) and not _fits(value, kind) else value


def _fits(value: Any, kind: Any) -> bool:
    try:
        _STRICT.structure([value], tuple[kind, ...])
    except CattrsError:
        return False
    return True


# --- problems ------------------------------------------------------------------------------------


def _problems(
    document: Document, variables: Mapping[Key, str], faults: Iterable[Fault]
) -> list[Problem]:
    """Return where each fault comes from: variables first, then the lines of the file."""
    lines = _key_lines(document.text)
    problems = []
    for key, why in faults:
        variable = variables.get(key[:2])
        line = None if variable else _nearest(lines, key)
        problems.append(Problem(variable or str(document.path), line, _dotted(key), why))
    return sorted(problems, key=lambda problem: problem.line or 0)


def _nearest(lines: Mapping[Key, int], key: Key) -> int | None:
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key)


def _dotted(key: Key) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)[1:]


def _leaves(error: BaseException, key: Key) -> Iterator[Fault]:
    """Walk a tree of structuring errors to what is wrong and where."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            key = (*key, note.name)
        elif isinstance(note, IterableValidationNote):
            key = (*key, note.index)
    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            yield from _leaves(inner, key)
    elif isinstance(error, ForbiddenExtraKeysError):
        for name in error.extra_fields:
            yield (*key, name), _unknown("key", name, attrs.fields_dict(error.cl))
    else:
        yield key, "is missing" if isinstance(error, KeyError) else str(error.args[0])


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"unknown {what}; did you mean '{close[0]}'?" if close else f"unknown {what}"


# --- from TOML's types to those of attrs classes, strictly ---------------------------------------

_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a table",
}
_COLLECTIONS = {tuple: tuple, Sequence: tuple, list: list, set: set, frozenset: frozenset}


def _expect(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"expected {_WORDS[kind]}, found {_show(value)}")
    return value


def _show(value: Any) -> str:
    if isinstance(value, list | dict):
        return _WORDS[type(value)]
    return reprlib.repr(value) if isinstance(value, str) else str(value).lower()


def _number(value: Any, _: Any) -> float:
    return float(value if type(value) is int else _expect(value, float))


def _path(value: Any, _: Any) -> Path:
    return Path(_expect(value, str)).expanduser()


def _choose(value: Any, kind: Any) -> Any:
    """Return the member of an enum, or of a Literal, with this value."""
    options = {getattr(option, "value", option): option for option in get_args(kind) or kind}
    if type(value) not in map(type, options) or value not in options:
        raise ValueError(f"expected one of {', '.join(map(repr, options))}, found {_show(value)}")
    return options[value]


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum))


def _is_collection(kind: Any) -> bool:
    is_pair = get_origin(kind) is tuple and Ellipsis not in get_args(kind)
    return get_origin(kind) in _COLLECTIONS and not is_pair


def _collection(kind: Any, converter: Converter) -> Hook:
    make = _COLLECTIONS[get_origin(kind)]
    items = list_structure_factory(kind, converter)
    return lambda value, _: make(items(_expect(value, list), kind))


def _mapping(kind: Any, converter: Converter) -> Hook:
    items = mapping_structure_factory(kind, converter)
    return lambda value, _: items(_expect(value, dict), kind)


def _class(cls: Any, converter: Converter) -> Hook:
    fields = [field for field in attrs.fields(attrs.resolve_types(cls)) if field.init]
    hooks: dict[str, Any] = {f.name: override(struct_hook=_field(f, converter)) for f in fields}
    make = make_dict_structure_fn(cls, converter, **hooks)
    return lambda value, _: make(_expect(value, dict), cls)


def _field(field: Any, converter: Converter) -> Hook:
    """Return a hook that validates the field at once.

    The class itself would stop at its first validator that objects, and not tell the key. It still
    runs those that look at their siblings, which are not here yet.
    """

    def structure_field(value: Any, _: Any) -> Any:
        result = converter.structure(value, field.type)
        if field.validator and not field.converter:
            with suppress(AttributeError):
                field.validator(None, field, result)
        return result

    return structure_field


def _strict() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _expect)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Path, _path)
    converter.register_structure_hook_func(_is_choice, _choose)
    converter.register_structure_hook_factory(_is_collection, _collection)
    converter.register_structure_hook_factory(is_mapping, _mapping)
    converter.register_structure_hook_factory(attrs.has, _class)
    return converter


_STRICT = _strict()
