"""The section ``[plugins]`` of the config."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen, validators


@frozen(kw_only=True)
class PluginSettings:
    """Section ``[plugins]``.

    :ivar discover: look for installed plugins at all.
    :ivar disabled: names of plugins that are not even imported.
    :ivar required: names of plugins without which the daemon must not start.
    :ivar modules: further plugin modules to load by import path, such as one under development.
    :ivar timeout_s: a plugin whose import or registration takes longer than this is disabled, and a
        request that one takes longer to check is refused.
    """

    discover: bool = True
    disabled: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    timeout_s: float = field(default=10.0, validator=validators.gt(0))


class RequiredPluginError(Exception):
    """A plugin that the config requires is not active.

    :param reasons: why not, by plugin.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__(f"required plugins are not active: {told}")


class RequiredPluginLateError(RequiredPluginError):
    """A plugin that the config requires did not answer in time, and may at the next start."""
