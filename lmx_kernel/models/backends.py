"""The backends by name, each with its own section of the config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import structlog
from attrs import define, field
from cattrs import unstructure
from cattrs.errors import CattrsError

from lmx_kernel.config import Settings
from lmx_kernel.config.strict import STRICT, Fault, find_faults, unknown
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.interfaces import Backend, SettingsSection
from lmx_kernel.plugins.timeouts import call_all
from lmx_kernel.types import DeviceMemory

DEVICE_S = 10.0  # a backend that does not know its device's memory by then has none
log = structlog.get_logger(__name__)


@define
class Backends:
    """The active backends.

    :param all: returns the current backends, in the order of their plugins.
    :param sections: the sections of the config.
    :ivar devices: the memory of the devices that models are loaded into, after
        :meth:`probe_devices`; none if models use the machine's own.
    """

    all: Callable[[], Sequence[Backend]]
    sections: Iterable[SettingsSection]
    settings: Settings
    devices: tuple[DeviceMemory, ...] = field(default=(), init=False)
    _probed: tuple[Backend, ...] = field(default=(), init=False)

    def probe_new_devices(self) -> None:
        """Probe the devices anew if these are not the backends that were asked before."""
        if [*map(id, self.all())] != [*map(id, self._probed)]:
            self.probe_devices()

    def probe_devices(self) -> None:
        """Ask each backend for the memory of its device. Slow: call it in a thread."""
        self._probed = tuple(self.all())
        calls = {
            backend.name: partial(backend.device_memory, self.settings_of(backend.name))
            for backend in self._probed
        }
        found = []
        for name, device in call_all(calls, DEVICE_S).items():
            # Backends are code of plugins: they may fail in any way, and the others still count.
            if isinstance(device, BaseException):
                log.error("device_unknown", backend=name, exc_info=device)
            elif isinstance(device, DeviceMemory):
                found.append(device)
        self.devices = tuple(found)

    def get(self, name: str) -> Backend:
        """Return a backend.

        :raises ModelUnusableError: its plugin is not active any more.
        """
        for backend in self.all():
            if backend.name == name:
                return backend
        raise ModelUnusableError(f"no plugin offers the backend {name}")

    def engine_module_of(self, name: str) -> str:
        """Return the module that a backend itself names for its engine; "" if it names none."""
        modules = (getattr(one, "engine_module", "") for one in self.all() if one.name == name)
        return next(modules, "")

    def settings_of(self, name: str, keys: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the section with the backend's name, as plain data for its worker.

        :param keys: of one model, which replace those of the section; those that the section does
            not have are another backend's.
        """
        section = self._section(name)
        if section is None:
            return {}
        given, fields = keys or {}, attrs.fields_dict(type(section))
        known = {key: value for key, value in given.items() if key in fields}
        settings: dict[str, Any] = unstructure(_replaced(section, known))
        return settings

    def changed_keys(self, name: str) -> dict[str, Any]:
        """Return the values of the section with the backend's name that are not the default."""
        section = self._section(name)
        if section is None:
            return {}
        default = type(section)()
        values = attrs.asdict(section, recurse=False)
        return {key: value for key, value in values.items() if value != getattr(default, key)}

    def faults(self, keys: Mapping[str, Any], known: Iterable[str]) -> Iterable[Fault]:
        """Yield what is wrong with keys that a table of one model has for its backend.

        :param known: the keys that are no backend's, for the message.
        """
        sections = [one for one in map(self._section, self.names) if one is not None]
        fields = {key for one in sections for key in attrs.fields_dict(type(one))}
        for key in keys.keys() - fields:
            yield (key,), unknown("key", key, {*known, *fields})
        found = [list(_faults(one, keys)) for one in sections]
        # A value may suit one backend and not another; the model has only one of them.
        for key in keys.keys() & fields:
            owners = [dict(faults) for faults, one in zip(found, sections, strict=True)
                      if key in attrs.fields_dict(type(one))]  # fmt: skip
            if all((key,) in faults for faults in owners):
                yield (key,), owners[0][key,]

    @property
    def names(self) -> list[str]:
        """The names of the active backends."""
        return sorted(backend.name for backend in self.all())

    def _section(self, name: str) -> Any:
        found = (one.cls for one in self.sections if one.name == name)
        cls = next(found, None)
        return None if cls is None else self.settings.get(cls)


def _replaced(section: Any, keys: Mapping[str, Any]) -> Any:
    fields = attrs.fields_dict(attrs.resolve_types(type(section)))
    kinds: dict[str, Any] = {key: fields[key].type for key in keys}
    return attrs.evolve(
        section, **{key: STRICT.structure(value, kinds[key]) for key, value in keys.items()}
    )


def _faults(section: Any, keys: Mapping[str, Any]) -> Iterable[Fault]:
    """Yield what a section would not take, one key at a time, and then together."""
    known = {key: keys[key] for key in attrs.fields_dict(type(section)) if key in keys}
    is_fine = True
    for key, value in known.items():
        kind: Any = attrs.fields_dict(attrs.resolve_types(type(section)))[key].type
        field = attrs.fields_dict(type(section))[key]
        try:
            result = STRICT.structure(value, kind)
            if field.validator:
                field.validator(None, field, result)
        except (CattrsError, ValueError) as error:
            is_fine = False
            yield (key,), next(why for _, why in find_faults(error, ()))
    if known and is_fine:
        try:
            _replaced(section, known)
        except ValueError as error:
            yield (next(iter(known)),), str(error.args[0])
