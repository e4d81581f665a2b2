"""The section ``[constraints]`` of the config."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class ConstraintSettings:
    """How schemas are read.

    :param open_objects: an object whose properties are listed takes others as well.
    """

    open_objects: bool = False
