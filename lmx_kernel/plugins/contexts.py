"""What each plugin's hooks get beside their own arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pluggy
import structlog
from attrs import field, frozen

from lmx_kernel.config import Settings, find_home
from lmx_kernel.hookspecs import Context
from lmx_kernel.interfaces import Metric
from lmx_kernel.plugins.metrics import PluginMetrics

ARGUMENT = "context"


@frozen
class HookCaller:
    """A hook of a plugin, to be called more than once; equal for the same function.

    :param takes: the names of the hook's arguments.
    :param names: of the values that it is called with.
    """

    function: Callable[..., Any]
    takes: tuple[str, ...]
    names: tuple[str, ...]
    context: Context | None = field(eq=False)

    def __call__(self, *values: Any) -> Any:
        """Call the hook with those of the values that it takes."""
        given = dict(zip(self.names, values, strict=True)) | {ARGUMENT: self.context}
        return self.function(**{name: given[name] for name in self.takes})


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
            arguments[ARGUMENT] = self.of(impl.plugin_name)
        return partial(impl.function, **{name: arguments[name] for name in impl.argnames})

    def caller(self, impl: pluggy.HookImpl, *names: str) -> HookCaller:
        """Return a plugin's hook as a function of arguments of these names, in this order."""
        context = self.of(impl.plugin_name) if ARGUMENT in impl.argnames else None
        return HookCaller(impl.function, tuple(impl.argnames), names, context)

    def forget(self, plugin: str) -> None:
        """Forget a plugin, and what it counted."""
        self._contexts.pop(plugin, None)
        self._metrics.pop(plugin, None)

    def metrics(self) -> list[Metric]:
        """Return the metrics of all plugins."""
        return [one for _, metrics in sorted(self._metrics.items()) for one in metrics.read()]

    def of(self, plugin: str) -> Context:
        """Return the context of a plugin."""
        if plugin not in self._contexts:
            metrics = self._metrics.setdefault(plugin, PluginMetrics(plugin))
            log = structlog.get_logger(f"lmx.plugin.{plugin}").bind(plugin=plugin)
            context = Context(plugin=plugin, settings=self._settings, log=log, metrics=metrics)
            self._contexts[plugin] = context
        return self._contexts[plugin]
