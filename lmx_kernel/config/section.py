"""A section of the config, as the kernel and plugins declare them."""

from __future__ import annotations

from typing import Any

from attrs import frozen


@frozen
class SettingsSection:
    """A section of the config file.

    :param name: ``[name]`` in the file, ``LMX_NAME_KEY`` in the environment.
    :param cls: an attrs class whose fields all have defaults.
    """

    name: str
    cls: type[Any]
