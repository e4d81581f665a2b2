"""What is kept of a request, of events and of usage is the same when it is read again."""

from __future__ import annotations

import types
import typing
from itertools import count

import attrs
import pytest

from lmx_kernel.stored.coding import (
    pack_events,
    pack_request,
    pack_usage,
    unpack_events,
    unpack_request,
    unpack_usage,
)
from lmx_kernel.types import Event, GenerationRequest, Priority, Prompt, Usage

numbers = count(1)


def example(kind):
    """Return a value of a type, with no two parts alike: a new field gets one too."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if attrs.has(kind):
        fields = attrs.fields(attrs.resolve_types(kind))
        return kind(
            **{
                field.name: field.default is not True if field.type is bool else example(field.type)
                for field in fields
            }
        )
    if origin in (typing.Union, types.UnionType):
        return example(inner[0])
    if origin is tuple:
        return tuple(example(part) for part in inner if part is not Ellipsis for _ in range(2))
    if origin is dict:
        return {example(inner[0]): example(inner[1])}
    if kind is Priority:
        return Priority.LOW
    if kind is typing.Any:
        return {"type": ["object", None, True, 1.5], "é": next(numbers)}
    return {
        int: lambda: next(numbers),
        float: lambda: next(numbers) / 8,
        str: lambda: f"é {next(numbers)}",
        bytes: lambda: b"\xff\0" + bytes([next(numbers) % 256]),
    }[kind]()


def parts(value):
    """Return a value with all fields, also those that do not count for equality."""
    if attrs.has(type(value)):
        names = [field.name for field in attrs.fields(type(value))]
        return type(value), [parts(getattr(value, name)) for name in names]
    return [parts(part) for part in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("kind", typing.get_args(Prompt))
def test_a_request_is_the_same_after_it_was_kept(kind):
    request = attrs.evolve(example(GenerationRequest), prompt=example(kind))
    assert parts(unpack_request(pack_request(request))) == parts(request)


def test_the_example_of_a_request_has_no_default_value():
    request = example(GenerationRequest)
    for field in attrs.fields(GenerationRequest):
        if field.default is not attrs.NOTHING:
            assert getattr(request, field.name) != field.default, field.name


@pytest.mark.parametrize("kind", typing.get_args(Event))
def test_an_event_is_the_same_after_it_was_kept(kind):
    events = (example(kind), example(kind))
    assert parts(unpack_events(pack_events(events))) == parts(events)


def test_usage_is_the_same_after_it_was_kept():
    usage = example(Usage)
    assert unpack_usage(pack_usage(usage)) == usage
    assert unpack_usage(pack_usage(None)) is None
