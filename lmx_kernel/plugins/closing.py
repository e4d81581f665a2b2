"""What plugins that are not used any more still have to give back."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from lmx_kernel.plugins.timeouts import call_all

log = structlog.get_logger(__name__)


class Closing:
    """The hooks ``lmx_close`` that are due, by the names of their plugins."""

    def __init__(self) -> None:
        self._due: dict[str, Callable[[], object]] = {}

    def add(self, plugin: str, call: Callable[[], object]) -> None:
        """Note that a plugin was removed; what uses its objects may not have let go of them yet."""
        self._due[plugin] = call

    def run(self, timeout_s: float) -> None:
        """Call what is due. Slow: call it in a thread, once nothing uses the plugins."""
        calls, self._due = self._due, {}
        for plugin, outcome in call_all(calls, timeout_s).items():
            if isinstance(outcome, BaseException):
                log.error("plugin_close_failed", plugin=plugin, exc_info=outcome)
