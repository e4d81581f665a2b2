"""What each plugin's hooks get beside their own arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pluggy
import structlog

from lmx_kernel.config import Settings, find_home
from lmx_kernel.hookspecs import Context
from lmx_kernel.interfaces import Metric
from lmx_kernel.observe.metrics import PluginMetrics

ARGUMENT = "context"


class Contexts:
    """A :class:`Context` for each plugin, made when one of its hooks first asks for it."""

    def __init__(self) -> None:
        self._settings = Settings(find_home(), {})
        self._contexts: dict[str, Context] = {}
        self._metrics: dict[str, PluginMetrics] = {}

    def use(self, settings: Settings) -> None:
        """Give this config to hooks from now on. It has sections of plugins, so it is not there
        before they are loaded.
        """
        self._settings = settings

    def bind(self, impl: pluggy.HookImpl, **arguments: Any) -> Callable[[], Any]:
        """Return the call of a plugin's hook, with those of the arguments that it takes."""
        if ARGUMENT in impl.argnames:
            arguments[ARGUMENT] = self._of(impl.plugin_name)
        return partial(impl.function, **{name: arguments[name] for name in impl.argnames})

    def caller(self, impl: pluggy.HookImpl, *names: str) -> Callable[..., Any]:
        """Return a plugin's hook as a function of arguments of these names, in this order."""
        return lambda *values: self.bind(impl, **dict(zip(names, values, strict=True)))()

    def forget(self, plugin: str) -> None:
        """Forget a plugin, and what it counted."""
        self._contexts.pop(plugin, None)
        self._metrics.pop(plugin, None)

    def metrics(self) -> list[Metric]:
        """Return the metrics of all plugins."""
        return [one for _, metrics in sorted(self._metrics.items()) for one in metrics.read()]

    def _of(self, plugin: str) -> Context:
        if plugin not in self._contexts:
            metrics = self._metrics.setdefault(plugin, PluginMetrics(plugin))
            log = structlog.get_logger(f"lmx.plugin.{plugin}").bind(plugin=plugin)
            context = Context(plugin=plugin, settings=self._settings, log=log, metrics=metrics)
            self._contexts[plugin] = context
        return self._contexts[plugin]
