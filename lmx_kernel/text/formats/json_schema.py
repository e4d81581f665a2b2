"""JSON schemas in a normal form: the one reading of every keyword, in answers and in calls of every
notation.

A part in normal form is one of:

- ``{}`` for any value, ``False`` for none;
- ``{"$ref": "#/$defs/NAME"}`` with nothing beside it;
- ``{"anyOf": [...]}`` with nothing beside it, of at least two parts;
- ``{"enum": [...]}``;
- a single ``type`` with its own keywords: an object says ``additionalProperties``, a string has a
  ``pattern`` in place of a ``format`` (and further ones in ``allOf``), a list has ``prefixItems``
  and ``items``.

What no mask can follow, such as ``not``, stays where it is. A normal form is its own normal form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

from attrs import define, field

from lmx_kernel.errors import InvalidSchemaError
from lmx_kernel.text.formats.schema_merge import merge, types_of
from lmx_kernel.text.formats.schema_texts import pattern_of
from lmx_kernel.types import Tool

Schema = dict[str, Any]

MAX_STEPS, MAX_CHOICES = 20_000, 256
"""Bounds of what a schema may unfold to; those of real tools stay far below."""

UNFOLLOWED = (
    "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies",
    "contains", "minContains", "maxContains", "uniqueItems", "minProperties", "maxProperties",
    "propertyNames",
)  # fmt: skip
"""Keywords that masks follow in simple cases only."""

KEYWORDS = {
    "object": ("properties", "required", "additionalProperties", "patternProperties"),
    "array": ("prefixItems", "items", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "boolean": (),
    "null": (),
}
"""What says something of each type; an integer is a number."""

DEFINITIONS = "#/$defs/"
CHOICES = ("anyOf", "oneOf")
COMBINATORS = ("$ref", "allOf", *CHOICES)
OTHERS = ("format", "enum", "const", "type", "unevaluatedProperties", "additionalItems")
TOLD = {*COMBINATORS, *OTHERS, *UNFOLLOWED, *(key for keys in KEYWORDS.values() for key in keys)}
"""All other keywords only describe."""

PYTHON_TYPES = {
    str: {"string"},
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    list: {"array"},
    dict: {"object"},
    type(None): {"null"},
}
"""JSON types of values."""


def normal_form(schema: Any, *, is_open: bool = False) -> Any:
    """Return the normal form of a schema.

    An object whose properties are listed takes no others unless it says so, other than the standard
    has it: a small model would invent some without end. ``oneOf`` is read as ``anyOf``: whether
    a value fits two options shows only when it is complete.

    :param is_open: read objects as the standard does.
    :raises InvalidSchemaError: a reference leads nowhere or to itself, or it unfolds to too much.
    """
    return _read(schema, schema, is_open=is_open)


def arguments_schema(tool: Tool, *, is_open: bool = False) -> Schema:
    """Return the normal form of a tool's parameters, which are an object whatever they say.

    A tool that lists no parameters takes none.

    :raises InvalidSchemaError: see :func:`normal_form`; or no object can fit.
    """
    schema = {"allOf": [{"type": "object"}, tool.parameters]}
    found = _read(tool.parameters, schema, is_open=is_open)
    if not isinstance(found, dict):
        raise InvalidSchemaError("nothing can fit it")
    says = {*COMBINATORS, "additionalProperties", "patternProperties", "propertyNames"}
    if not says & tool.parameters.keys() and not found.get("properties"):
        return {"type": "object", "additionalProperties": False}
    return found


def alternatives(part: Any, root: Any, depth: int = 0) -> Iterator[Schema]:
    """Yield the parts without references and choices of which a value fits one.

    :param part: in normal form.
    :param root: the normal form that it is from.
    """
    if not isinstance(part, dict) or depth > len(root.get("$defs", ())) + 1:
        return
    if "$ref" in part:
        definition = root["$defs"][part["$ref"].removeprefix(DEFINITIONS)]
        yield from alternatives(definition, root, depth + 1)
    elif "anyOf" in part:
        for option in part["anyOf"]:
            yield from alternatives(option, root, depth)
    else:
        yield {key: value for key, value in part.items() if key != "$defs"}


def _read(root: Any, schema: Any, *, is_open: bool) -> Any:
    reading = _Reading(root, is_open)
    part = reading.part(schema) if schema is root else reading.combined(schema)
    definitions = reading.definitions
    try:
        TopologicalSorter(
            {name: set(_names_in(definitions[name])) for name in definitions}
        ).prepare()
    except CycleError:
        raise InvalidSchemaError("a reference leads to itself") from None
    return {**part, "$defs": definitions} if definitions and isinstance(part, dict) else part


def _names_in(part: Any) -> Iterator[str]:
    """Yield the definitions that a part may stand for, but not those that its own parts name."""
    for option in part.get("anyOf", [part]) if isinstance(part, dict) else ():
        if "$ref" in option:
            yield option["$ref"].removeprefix(DEFINITIONS)


def _referred(reference: Any, root: Any) -> Any:
    """Return the part of a schema that ``#/a/b`` names.

    :raises InvalidSchemaError: there is none.
    """
    part: Any = root
    for key in unquote(str(reference)).removeprefix("#").strip("/").split("/"):
        name = key.replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        elif isinstance(part, dict) and name in part:
            part = part[name]
        elif name or not str(reference).startswith("#"):
            raise InvalidSchemaError(
                f"it refers to {str(reference)[:80]!r}, which it does not have"
            )
    return part


@define
class _Reading:
    """Reads one schema.

    :ivar definitions: what references name, in normal form.
    """

    _root: Any
    _is_open: bool
    definitions: Schema = field(factory=dict, init=False)
    _names: dict[str, str] = field(factory=dict, init=False)
    _steps: int = field(default=0, init=False)

    def part(self, schema: Any) -> Any:
        """Return the normal form of a part."""
        self._count()
        if not isinstance(schema, dict):
            return schema is not False and {}
        told = {key: value for key, value in schema.items() if key in TOLD}
        if told.keys() == {"$ref"}:
            return self._reference(told["$ref"])
        if len(told) == 1 and isinstance(options := _choice(told), list):
            return _any_of([self.part(option) for option in options])
        listed = _listed(told, "allOf")
        if len(told) == len(listed) == 1:
            return self.part(listed[0])
        if _is_combined(told) and any(map(_is_combined, [told | {"allOf": None}, *listed])):
            # By name, since a part of it may be the same combination again.
            return self._definition(json.dumps(told), lambda: self.combined(told))
        return self.combined(told)

    def combined(self, told: Any) -> Any:
        """Return the normal form of a part without naming it, whatever it combines."""
        found = self._conjunctions(told, frozenset())
        return _any_of([part for one in found for part in self._typed(one)])

    def _count(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise InvalidSchemaError("it unfolds to too many parts")

    def _reference(self, reference: Any) -> Any:
        return self._definition(str(reference), lambda: self.part(_referred(reference, self._root)))

    def _definition(self, key: str, read: Callable[[], Any]) -> Schema:
        name = self._names.get(key)
        if name is None:
            self._names[key] = name = f"part_{len(self._names)}"
            # It has its name before it is read, since it may hold itself.
            self.definitions[name] = read()
        return {"$ref": DEFINITIONS + name}

    def _conjunctions(self, schema: Any, seen: frozenset[str]) -> list[Schema]:
        """Return parts without references and choices, of which what fits the schema fits one.

        :param seen: the references that led here.
        """
        self._count()
        if not isinstance(schema, dict):
            return [] if schema is False else [{}]
        found = [_own(schema)]
        for options in self._combined(schema, seen):
            pairs = [merge(one, option) for one in found for option in options]
            found = [pair for pair in pairs if pair is not None]
            if len(found) > MAX_CHOICES:
                raise InvalidSchemaError("it has too many combinations of choices")
        return found

    def _combined(self, schema: Schema, seen: frozenset[str]) -> Iterator[list[Schema]]:
        """Yield the options of each combinator."""
        if (reference := schema.get("$ref")) is not None:
            if str(reference) in seen:
                raise InvalidSchemaError("a reference leads to itself")
            referred = _referred(reference, self._root)
            yield self._conjunctions(referred, seen | {str(reference)})
        for part in _listed(schema, "allOf"):
            yield self._conjunctions(part, seen)
        for key in CHOICES:
            if options := _listed(schema, key):
                yield [one for option in options for one in self._conjunctions(option, seen)]

    def _typed(self, told: Schema) -> Iterator[Any]:
        """Yield a part without combinators by its types."""
        kinds = types_of(told["type"]) if "type" in told else []
        if "enum" in told:
            kept = [value for value in told["enum"] if not kinds or _has_type(value, kinds)]
            beside = {key: value for key, value in told.items() if key not in OTHERS}
            if kept:
                yield {"enum": kept} | _shown(beside)
            return
        kinds = kinds or _implied(told)
        unfollowed = {key: told[key] for key in UNFOLLOWED if key in told}
        if not kinds:
            yield unfollowed
        for kind in dict.fromkeys(kinds):
            if kind not in {*KEYWORDS, "integer"}:
                raise InvalidSchemaError(f"there is no type {kind[:80]!r}")
            if kind != "integer" or "number" not in kinds:
                keys = KEYWORDS["number" if kind == "integer" else kind]
                own = {key: told[key] for key in keys if key in told}
                yield {"type": kind} | self._keywords(kind, own, dict(unfollowed), told)

    def _keywords(self, kind: str, own: Schema, unfollowed: Schema, told: Schema) -> Schema:
        if kind == "object":
            return self._object(own, unfollowed, told)
        if kind == "array":
            return self._list(own, unfollowed, told)
        return _shown(own) | unfollowed

    def _object(self, own: Schema, unfollowed: Schema, told: Schema) -> Schema:
        names = _mapping(own, "properties")
        further = own.get("additionalProperties", told.get("unevaluatedProperties"))
        patterns = {key: self.part(one) for key, one in _mapping(own, "patternProperties").items()}
        if further is None:
            further = self._is_open or not ("properties" in own or patterns)
        properties = {name: self.part(wanted) for name, wanted in names.items()}
        rest = self.part(further)
        required = [name for name in own.get("required") or () if isinstance(name, str)]
        for name in required:
            if name not in properties and not patterns:
                properties[name] = {} if rest is False and "properties" in own else rest
        if "propertyNames" in unfollowed and not patterns:
            found = self._keys(unfollowed["propertyNames"], rest)
            if found is not None and not (found and properties):
                del unfollowed["propertyNames"]
                properties = found.get("properties", properties)
                patterns = found.get("patternProperties", patterns)
                rest = found.get("additionalProperties", rest)
        if unfollowed.get("minProperties", 1) <= len(required):
            unfollowed.pop("minProperties", None)
        if rest is False and unfollowed.get("maxProperties", 0) >= len(properties):
            unfollowed.pop("maxProperties", None)
        parts = {"properties": properties, "patternProperties": patterns, "required": required}
        shown = {key: value for key, value in parts.items() if value}
        return shown | {"additionalProperties": rest} | unfollowed

    def _keys(self, keys: Any, rest: Any) -> Schema | None:
        """Return the keywords for an object whose keys fit a schema; None if there are none."""
        found = list(alternatives(self.part(keys), {"$defs": self.definitions}))
        if len(found) != 1:
            return None
        [wanted] = found
        if not wanted or wanted == {"type": "string"}:
            return {}
        if wanted.keys() == {"enum"}:
            return {
                "properties": {str(name): rest for name in wanted["enum"]},
                "additionalProperties": False,
            }
        low, high = wanted.get("minLength", 0), wanted.get("maxLength", "")
        if wanted.keys() == {"type", "pattern"}:
            pattern = wanted["pattern"]
        elif wanted.keys() <= {"type", "minLength", "maxLength"}:
            pattern = f"^(?s:.{{{low},{high}}})$"
        else:
            return None
        return {"patternProperties": {pattern: rest}, "additionalProperties": False}

    def _list(self, own: Schema, unfollowed: Schema, told: Schema) -> Schema:
        first, rest = own.get("prefixItems"), own.get("items", True)
        if isinstance(rest, list):  # as before 2020-12
            first, rest = rest, told.get("additionalItems", True)
        if unfollowed.get("uniqueItems") is False or own.get("maxItems", 2) in (0, 1):
            unfollowed.pop("uniqueItems", None)
        parts = [self.part(one) for one in first] if isinstance(first, list) else []
        shown = {key: own[key] for key in ("minItems", "maxItems") if key in own}
        start = {"prefixItems": parts} if parts else {}
        return start | {"items": self.part(rest)} | shown | unfollowed


def _is_combined(schema: Any) -> bool:
    return isinstance(schema, dict) and any(schema.get(key) is not None for key in COMBINATORS)


def _choice(told: Schema) -> Any:
    return next((told[key] for key in CHOICES if key in told), None)


def _listed(schema: Schema, key: str) -> list[Any]:
    found = schema.get(key)
    return found if isinstance(found, list) else []


def _mapping(schema: Schema, key: str) -> Schema:
    found = schema.get(key)
    return found if isinstance(found, dict) else {}


def _any_of(parts: Sequence[Any]) -> Any:
    """Return the normal form of a choice."""
    found: list[Any] = []
    for part in parts:
        for option in part["anyOf"] if isinstance(part, dict) and "anyOf" in part else [part]:
            if option is not False and option not in found:
                found.append(option)
    if len(found) == 1:
        return found[0]
    return {"anyOf": found} if found else False


def _own(schema: Schema) -> Schema:
    """Return the keywords of a schema that are no combinators, with one spelling for each fact."""
    own = {key: item for key, item in schema.items() if key in TOLD and key not in COMBINATORS}
    if "const" in own:
        const = own.pop("const")
        own["enum"] = [const] if "enum" not in own or const in own["enum"] else []
    if (pattern := pattern_of(own.pop("format", None))) is not None:
        own["pattern"] = [own["pattern"], pattern] if "pattern" in own else pattern
    for key, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(is_exclusive := own.get(exclusive), bool):  # as in draft 4
            del own[exclusive]
            if is_exclusive and key in own:
                own[exclusive] = own.pop(key)
    return own


def _implied(told: Schema) -> list[str]:
    """Return the types of a schema without ``type``: the one that it speaks of, all if it speaks of
    several, and none if of none.
    """
    kinds = [kind for kind, keys in KEYWORDS.items() if any(key in told for key in keys)]
    return list(KEYWORDS) if len(kinds) > 1 else kinds


def _has_type(value: Any, kinds: Sequence[str]) -> bool:
    is_whole = isinstance(value, float) and value.is_integer()
    return bool(PYTHON_TYPES[type(value)] & set(kinds)) or (is_whole and "integer" in kinds)


def _shown(own: Schema) -> Schema:
    """Return keywords as the normal form writes them: a single pattern, and the others beside."""
    patterns = own.get("pattern")
    if not isinstance(patterns, list):
        return own
    first, *others = patterns
    return own | {"pattern": first, "allOf": [{"type": "string", "pattern": one} for one in others]}
