"""Requests, events and usage to plain data and back, for messages and files."""

from __future__ import annotations

from typing import Any

from cattrs import Converter
from cattrs.strategies import configure_tagged_union

from lmx_kernel.types.answers import Event
from lmx_kernel.types.requests import EmbeddingInput, Prompt


def make_converter(*, omit_defaults: bool = False) -> Converter:
    """Return a converter for the classes of :mod:`lmx_kernel.types`. In a union, the key "" holds
    the name of the class; a key that is missing has its default, and an unknown one is ignored.

    :param omit_defaults: leave out what has its default. Not for files: another version, which may
        have other defaults, reads these.
    """
    converter = Converter(omit_if_default=omit_defaults)
    unions: tuple[Any, ...] = (EmbeddingInput, Prompt, Event)
    for union in unions:
        configure_tagged_union(union, converter, tag_name="")
    converter.register_structure_hook_func(
        lambda kind: kind == tuple[int, ...], lambda values, _: tuple(values)
    )
    return converter
