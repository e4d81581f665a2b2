"""How long a model stays loaded after a request."""

from __future__ import annotations

import re

from attrs import frozen

from lmx_kernel.errors import InvalidRequestError, ModelNotLoadedError
from lmx_kernel.interfaces import Kernel, ModelStatus
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import LoadOverrides
from lmx_ollama_api.names import known_as, resolve

MAX_S = 100 * 365 * 86_400.0
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"
_DURATION = re.compile(rf"[+-]?(?:{_PART})+")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")


@frozen
class KeepAlive:
    """What a client said of it.

    :ivar ttl_s: unload the model after so many seconds without a request; None never does.
    """

    ttl_s: float | None

    @classmethod
    def parse(cls, given: float | str | None) -> KeepAlive | None:
        """Return what a field says: seconds, or a duration as Go writes it, such as ``1h30m``;
        None where it says nothing.

        :raises InvalidRequestError: it is no duration.
        """
        if given is None or given == "":
            return None
        seconds = _seconds(given) if isinstance(given, str) else given
        return cls(None if seconds < 0 else min(seconds, MAX_S))


@frozen
class Loader:
    """Loads and unloads models as this dialect has it."""

    kernel: Kernel

    def keep(self, model: str, keep_alive: KeepAlive | None) -> None:
        """Let a loaded model stay for as long as a client said, if it said so."""
        if keep_alive is not None:
            self.kernel.keep(model, keep_alive.ttl_s)

    async def load(self, name: str, keep_alive: KeepAlive | None) -> str:
        """Load a model, or unload it where it shall stay for no time; return what was done.

        :raises ModelNotLoadedError: the config does not let requests load models.
        :raises LmxError: it is unknown, or cannot be loaded.
        """
        with known_as(name):
            model = resolve(self.kernel, name)
            if keep_alive is not None and keep_alive.ttl_s == 0:
                await self._unload(model)
                return "unload"
            await self._load(model)
        self.keep(model, keep_alive)
        return "load"

    async def _load(self, model: str) -> None:
        status = self._status(model)
        if status is not None and status.state == "ready":
            return  # loading it again with the config's options might change it
        settings = self.kernel.settings(ModelSettings)
        if not settings.jit:
            raise ModelNotLoadedError(f"{model} is not loaded, and models.jit is off")
        await self.kernel.load(model, LoadOverrides())
        self.kernel.keep(model, settings.ttl_s or None)

    async def _unload(self, model: str) -> None:
        status = self._status(model)
        if status is not None and status.running + status.waiting:
            self.kernel.keep(model, 0)  # after the requests of others
            return
        await self.kernel.unload(model)

    def _status(self, model: str) -> ModelStatus | None:
        return next((one for one in self.kernel.model_statuses() if one.id == model), None)


def _seconds(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise InvalidRequestError(
            "keep_alive: a duration is a number of seconds, or such as 5m or 1h30m",
            param="keep_alive",
        )
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, text))
    return -seconds if text.startswith("-") else seconds
