"""What is to leave the API: it warns of its use, and names the plugin that has to change."""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import packages_distributions, version
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("lmx.deprecated")  # the standard library's: workers import no structlog


class LmxDeprecationWarning(DeprecationWarning):
    """A plugin uses what is to leave LMX's API. Tests of the plugin show it; the daemon logs it."""


def deprecated(since: str, until: str, instead: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function of the API as one that is to go. Each plugin that calls it is named once in
    the log, and gets an :class:`LmxDeprecationWarning` at each call.

    :param since: the version of the API that deprecates it, such as ``1.1``.
    :param until: the version that does not have it any more: two minor releases or six months
        later, whichever is longer.
    :param instead: what to use, as the end of a sentence.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        what = f"{function.__module__}.{function.__qualname__}"
        rest = f"deprecated since version {since} of LMX's API and gone in {until}: use {instead}"

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            text = f"{_plugin_of(sys._getframe(1).f_globals['__name__'])} uses {what}, {rest}"  # noqa: SLF001 - the caller's
            warnings.warn(text, LmxDeprecationWarning, stacklevel=2)
            _log_once(text)
            return function(*args, **kwargs)

        return call

    return mark


@functools.cache
def _plugin_of(module: str) -> str:
    """Return the distribution that a module belongs to, with its version; else the module."""
    owners = packages_distributions().get(module.partition(".")[0])
    return f"{owners[0]} {version(owners[0])}" if owners else module


@functools.cache
def _log_once(text: str) -> None:
    log.warning("%s", text)
