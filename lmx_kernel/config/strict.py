"""A strict converter from TOML values to attrs classes, with clear messages."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
from cattrs import AttributeValidationNote, Converter, IterableValidationNote, override
from cattrs.cols import is_mapping, list_structure_factory, mapping_structure_factory
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from lmx_kernel.config.toml_lines import Key

ENTRIES = {"entries": True}
"""Metadata of the only field of a section that is written as tables, ``[[section]]``."""

REST = {"rest": True}
"""Metadata of a field that takes the keys of a table that the class does not have."""

Fault = tuple[Key, str]
Hook = Callable[[Any, Any], Any]
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
    if (entries := entries_field(cls)) is not None:
        return _entries(cls, entries, converter)
    hooks: dict[str, Any] = {f.name: override(struct_hook=_field(f, converter)) for f in fields}
    make = make_dict_structure_fn(cls, converter, **hooks)
    rest = next((f.name for f in fields if REST.items() <= f.metadata.items()), None)
    if rest is None:
        return lambda value, _: make(_expect(value, dict), cls)
    known = {f.name for f in fields} - {rest}
    return lambda value, _: make(_set_apart(_expect(value, dict), known, rest), cls)


def entries_field(cls: Any) -> Any:
    """Return the field of a section that is written as tables; None if it is one table."""
    fields = attrs.fields(cls)
    return next((f for f in fields if ENTRIES.items() <= f.metadata.items()), None)


def _entries(cls: Any, entries: Any, converter: Converter) -> Hook:
    def structure_entries(value: Any, _: Any) -> Any:
        if isinstance(value, dict):
            raise ValueError("expected tables with two brackets, [[...]], found one table")
        return cls(**{entries.name: converter.structure(value, entries.type)})

    return structure_entries


def _set_apart(table: dict[str, Any], known: set[str], rest: str) -> dict[str, Any]:
    """Return ``table`` with the keys that are not ``known`` in a table ``rest``."""
    others = {key: value for key, value in table.items() if key not in known}
    return {key: table[key] for key in table.keys() & known} | {rest: others}


def _field(field: Any, converter: Converter) -> Hook:
    """Return a hook that validates a field when it is structured.

    The class itself would stop at the first validator that fails, and not report the key. It still
    runs validators that read other fields, which are not set yet here.
    """

    def structure_field(value: Any, _: Any) -> Any:
        try:
            result = converter.structure(value, field.type)
        except ValueError:
            if field.repr:
                raise
            raise ValueError("not of the right type (it is a secret, so not shown)") from None
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


STRICT = _strict()


def find_faults(error: BaseException, key: Key) -> Iterator[Fault]:
    """Yield each fault in a tree of structuring errors, with its key."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            key = (*key, note.name)
        elif isinstance(note, IterableValidationNote):
            key = (*key, note.index)
    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            yield from find_faults(inner, key)
    elif isinstance(error, ForbiddenExtraKeysError):
        for name in error.extra_fields:
            yield (*key, name), unknown("key", name, attrs.fields_dict(error.cl))
    else:
        yield key, "is missing" if isinstance(error, KeyError) else str(error.args[0])


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the closest known one."""
    close = difflib.get_close_matches(name, known, 1)
    return f"unknown {what}; did you mean '{close[0]}'?" if close else f"unknown {what}"
