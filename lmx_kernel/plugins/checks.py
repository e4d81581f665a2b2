"""Checks the objects that hooks return, so that a plugin with a wrong one is off from the start,
instead of failing in the middle of a request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Real
from typing import Any

import attrs
import msgspec
from attrs import frozen

from lmx_kernel.config.strict import STRICT
from lmx_kernel.errors import InternalError, InvalidRequestError
from lmx_kernel.interfaces import HeaderRouted, Operation
from lmx_kernel.plugins.calls import described


@frozen
class Shape:
    """What objects of one kind must have.

    :ivar kind: what users call it.
    :ivar texts: attributes that are strings, beside ``name``.
    :ivar check: raises what else is wrong with one.
    """

    kind: str
    methods: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    check: Callable[[Any], None] = lambda _: None


def named(hook: str, objects: Iterable[Any], reserved: Collection[str] = ()) -> dict[str, Any]:
    """Return the objects that a hook returned by their names.

    :param reserved: names that belong to LMX itself.
    :raises TypeError: one of them lacks what it needs.
    :raises ValueError: a name is taken.
    """
    shape, found = SHAPES[hook], dict[str, Any]()
    for value in objects:
        _check_shape(shape, value)
        if value.name in reserved:
            raise ValueError(f"the {shape.kind} {value.name} is LMX's own; choose another name")
        if value.name in found:
            raise ValueError(f"two objects are {shape.kind} {value.name}")
        shape.check(value)
        found[value.name] = value
    return found


def _check_shape(shape: Shape, value: Any) -> None:
    for name in ("name", *shape.texts):
        if not isinstance(getattr(value, name, None), str):
            raise TypeError(f"{_called(shape, value)} has no {name}, a string")
    for name in shape.methods:
        if not callable(getattr(value, name, None)):
            raise TypeError(f"{_called(shape, value)} has no {name}()")


def _called(shape: Shape, value: Any) -> str:
    name = getattr(value, "name", None)
    return f"the {shape.kind} {name}" if isinstance(name, str) else f"the {shape.kind} {value!r}"


def _check_section(section: Any) -> None:
    if not isinstance(section.cls, type) or not attrs.has(section.cls):
        raise TypeError(f"the class of the section {section.name} is no attrs class")
    needed = [
        one.name for one in attrs.fields(section.cls) if one.init and one.default is attrs.NOTHING
    ]
    if needed:
        raise TypeError(f"{', '.join(needed)} of the section {section.name} needs a default")
    attrs.resolve_types(section.cls)
    STRICT.structure({}, section.cls)


def _check_monitor(monitor: Any) -> None:
    interval_s = getattr(monitor, "interval_s", None)
    if not isinstance(interval_s, Real) or not 0 < float(interval_s) < math.inf:
        raise TypeError(f"the monitor {monitor.name} has no interval_s above 0")


def _check_job_kind(kind: Any) -> None:
    if not isinstance(spec := getattr(kind, "spec", None), type) or not attrs.has(spec):
        raise TypeError(f"the job kind {kind.name} has no spec, an attrs class")
    if not isinstance(getattr(kind, "parallel", None), int) or kind.parallel < 1:
        raise TypeError(f"the job kind {kind.name} has no parallel, an integer above 0")


def _check_surface(surface: Any) -> None:
    """Ask for everything that the server and its documentation ask for later."""
    if not surface.prefix.startswith("/"):
        raise ValueError(f"the prefix {surface.prefix!r} does not begin with /")
    if not isinstance(getattr(surface, "scope", ""), str):
        raise TypeError(f"the scope of the API {surface.name} is no string")
    _check_routes(surface)
    for operation in _asked(surface, "operations"):
        if not isinstance(operation, Operation):
            raise TypeError(f"operations() of {surface.name} gave {operation!r}")
    for error in (InternalError("x"), InvalidRequestError("x", param="x")):
        body = surface.render_error(error)
        if not isinstance(body, Mapping):
            raise TypeError(f"render_error() of {surface.name} gave {body!r}")
        msgspec.json.encode(body)


def _check_routes(surface: Any) -> None:
    routes = _asked(surface, "routes")
    if isinstance(surface, HeaderRouted):
        routes += _asked(surface, "header_routes")
    for template, resource in routes:
        if not isinstance(template, str) or not template.startswith("/"):
            raise ValueError(f"the path {template!r} of {surface.name} does not begin with /")
        if not any(name.startswith("on_") for name in dir(resource)):
            raise TypeError(f"{resource!r} at {template} answers no method")


def _asked(surface: Any, method: str) -> list[Any]:
    """Return what a method of a surface does; an error says which method it came from."""
    try:
        return list(getattr(surface, method)())
    # A plugin's: it may fail in any way, including sys.exit().
    except (Exception, SystemExit) as error:
        raise RuntimeError(f"{method}() of {surface.name}: {described(error)}") from error


SHAPES = {
    "lmx_settings": Shape("section", check=_check_section),
    "lmx_backends": Shape(
        "backend", ("identify", "verify", "estimate", "device_memory", "worker_env")
    ),
    "lmx_model_sources": Shape("model source", ("locations", "delete")),
    "lmx_routers": Shape("router", ("route",)),
    "lmx_monitors": Shape("monitor", ("sample",), check=_check_monitor),
    "lmx_job_kinds": Shape("job kind", ("key", "run", "discard"), ("unit",), _check_job_kind),
    "lmx_api_surfaces": Shape(
        "API",
        ("routes", "operations", "render_error", "example"),
        ("prefix",),
        _check_surface,
    ),
}
