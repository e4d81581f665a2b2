"""Fields of a dialect that mean something LMX does not do: refused by name, never ignored."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, get_origin, get_type_hints

import attrs
import msgspec
from msgspec import Meta, Raw

from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError

ABSENT: Any = None  # the default of a refused field: a Raw has no null
_SPACE = b" \t\r\n"


def refused(*harmless: Any) -> Meta:
    """Mark a field of type :class:`msgspec.Raw` that is refused, unless it is absent, null or one
    of ``harmless``.
    """
    # The values are named in the description also because typing would take 0 and False for equal.
    values = " or ".join(msgspec.json.encode(value).decode() for value in (None, *harmless))
    return Meta(
        description=f"Not served: takes only {values}.",
        extra_json_schema={"enum": [None, *harmless]},
    )


def misplaced(path: str) -> Meta:
    """Mark a field of type :class:`msgspec.Raw` that bodies of another dialect have.

    :param path: where these belong.
    """
    return Meta(
        description=f"A field of {path}.", extra_json_schema={"enum": [None]}, extra={"path": path}
    )


def check_supported(body: Any, path: str = "") -> None:
    """Refuse fields of ``body``, an attrs object, that are marked so and have a value.

    :param path: stands before the fields' names, such as ``messages[0].``.
    :raises UnsupportedFieldError: naming the field.
    :raises InvalidRequestError: the body belongs to another path, which is named.
    """
    for name, (harmless, other_path) in _refused_fields(type(body)).items():  # type: ignore[arg-type]
        raw = getattr(body, name)
        if raw is None or bytes(raw).translate(None, _SPACE) in harmless:
            continue
        where = f"{path}{name}"
        if other_path:
            raise _misplaced_error(where, other_path)
        raise UnsupportedFieldError(f"{where}: not supported yet", param=where)


def find_misplaced(data: bytes, cls: Any) -> InvalidRequestError | None:
    """Return what is wrong with a body that is no ``cls``, if it has a field of another dialect.

    :param data: JSON.
    :param cls: any type; only attrs classes have such fields.
    """
    if not attrs.has(cls):
        return None
    try:
        body = msgspec.json.decode(data, type=dict[str, Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    for name, (_, other_path) in _refused_fields(cls).items():
        if other_path and bytes(body.get(name, b"null")).strip() != b"null":
            return _misplaced_error(name, other_path)
    return None


def _misplaced_error(field: str, path: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: belongs to a body of {path}", param=field)


@cache
def _refused_fields(cls: type[Any]) -> dict[str, tuple[frozenset[bytes], str]]:
    """Return the marked fields of ``cls``: the compact JSON that each may have, and its path."""
    fields = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if get_origin(hint) is Annotated and hint.__origin__ is Raw:
            (meta,) = hint.__metadata__
            harmless = frozenset(map(msgspec.json.encode, meta.extra_json_schema["enum"]))
            fields[name] = (harmless, (meta.extra or {}).get("path", ""))
    return fields
