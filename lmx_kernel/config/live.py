"""Changes the config of a running daemon: the keys that are marked :data:`LIVE`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from cattrs import unstructure
from cattrs.errors import CattrsError

from lmx_kernel.config import Settings, is_live
from lmx_kernel.config.section import SettingsSection
from lmx_kernel.config.strict import STRICT, entries_field, find_faults, unknown
from lmx_kernel.errors import InvalidRequestError

MASK = "***"
Values = dict[str, dict[str, Any]]


def show(settings: Settings, sections: Iterable[SettingsSection], *, only_live: bool) -> Values:
    """Return the values of all keys, or of those that may be changed; secrets are masked."""
    values = {
        section.name: {
            field.name: _shown(field, getattr(settings.get(section.cls), field.name))
            for field in attrs.fields(section.cls)
            if not only_live or (is_live(field) and entries_field(section.cls) is None)
        }
        for section in sections
    }
    return {name: keys for name, keys in values.items() if keys}


def change(
    settings: Settings,
    sections: Iterable[SettingsSection],
    wanted: Mapping[str, Mapping[str, Any]],
) -> None:
    """Apply new values, all or none.

    :param wanted: values by section and key.
    :raises InvalidRequestError: with all problems.
    """
    classes = {section.name: section.cls for section in sections}
    problems: list[str] = []
    changed = []
    for name, values in wanted.items():
        if name not in classes:
            problems.append(f"{name}: {unknown('section', name, classes)}")
            continue
        if entries_field(classes[name]) is not None:
            problems.append(f"{name}: only the file changes these tables")
            continue
        found = _structure(name, classes[name], values, problems)
        try:
            changed.append(attrs.evolve(settings.get(classes[name]), **found))
        except ValueError as error:
            problems.append(f"{name}: {error.args[0]}")
    if problems:
        raise InvalidRequestError("; ".join(problems))
    for section in changed:
        settings.replace(section)


def _structure(
    name: str, cls: type[Any], values: Mapping[str, Any], problems: list[str]
) -> dict[str, Any]:
    fields = attrs.fields_dict(attrs.resolve_types(cls))
    found = {}
    for key, value in values.items():
        place = f"{name}.{key}"
        if key not in fields:
            problems.append(f"{place}: {unknown('key', key, fields)}")
        elif not is_live(fields[key]):
            problems.append(f"{place}: cannot be changed while the daemon runs")
        else:
            kind: Any = fields[key].type
            try:
                found[key] = STRICT.structure(value, kind)
            except (CattrsError, ValueError) as error:
                problems += [f"{place}: {why}" for _, why in find_faults(error, ())]
    return found


def _shown(field: Any, value: Any) -> Any:
    if not field.repr:
        return MASK if value else value
    return STRICT.unstructure(value) if attrs.has(type(value)) else unstructure(value)
