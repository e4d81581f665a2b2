"""What was set for single models through the API; kept in a file of LMX's own folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog
from attrs import asdict, evolve, field, frozen
from cattrs.errors import CattrsError

from lmx_kernel.config.private_file import write_private
from lmx_kernel.config.strict import STRICT, find_faults
from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.models.model_table import ModelValues
from lmx_kernel.types import LoadOverrides

log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class Saved:
    """The content of the file, by the ids of models.

    :ivar settings: as the API got them.
    :ivar loads: what the last load by request asked for.
    """

    settings: dict[str, dict[str, Any]] = field(factory=dict)
    loads: dict[str, LoadOverrides] = field(factory=dict)


class SavedSettings:
    """The settings of single models. Reading them is quick; a change is on disk when it returns.

    :ivar saved: replaced as a whole by each change.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = asyncio.Lock()
        self._values: dict[str, ModelValues] = {}
        self.saved = Saved()
        with suppress(FileNotFoundError, NotADirectoryError):
            self._take(_read(file))

    def values(self, model: str) -> ModelValues:
        """Return what is set for a model."""
        return self._values.get(model) or ModelValues()

    async def change(
        self, model: str, wanted: Mapping[str, Any] | None, check: Callable[[ModelValues], None]
    ) -> None:
        """Change what is set for a model.

        :param wanted: merged into what is set as a JSON merge patch (RFC 7396), so null takes a key
            back; None takes all of them back.
        :param check: raises InvalidRequestError if the result cannot be.
        :raises InvalidRequestError: with every problem.
        :raises OSError: it cannot be written; nothing has changed.
        """
        async with self._lock:
            others = {key: raw for key, raw in self.saved.settings.items() if key != model}
            raw = {} if wanted is None else merged(self.saved.settings.get(model, {}), wanted)
            await asyncio.to_thread(check, structured(raw))
            await self._write(evolve(self.saved, settings=others | ({model: raw} if raw else {})))

    async def keep_load(self, model: str, overrides: LoadOverrides | None) -> None:
        """Keep what a load asked for; None forgets it. That it cannot be written is logged."""
        async with self._lock:
            loads = {key: one for key, one in self.saved.loads.items() if key != model}
            if overrides not in (None, LoadOverrides()):
                loads[model] = overrides
            if loads == self.saved.loads:
                return
            try:
                await self._write(evolve(self.saved, loads=loads))
            except OSError as error:
                log.warning("load_not_kept", model=model, reason=error.strerror)

    async def _write(self, saved: Saved) -> None:
        data = msgspec.json.format(msgspec.json.encode(asdict(saved)), indent=2)
        await asyncio.to_thread(write_private, self._file, data)
        self._take(saved)

    def _take(self, saved: Saved) -> None:
        self._values = {}
        for model, raw in saved.settings.items():
            try:
                self._values[model] = structured(raw)
            except InvalidRequestError as error:  # of another version of LMX
                log.warning("model_settings_ignored", model=model, reason=error.message)
        self.saved = saved


def saved_file(home: Path) -> Path:
    """Return where the settings of single models are kept, in LMX's own folder ``home``."""
    return home / "state" / "models.json"


def merged(target: Any, patch: Any) -> Any:
    """Return ``target`` after a JSON merge patch: https://www.rfc-editor.org/rfc/rfc7396"""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return {key: value for key, value in result.items() if value != {}}


def structured(raw: Mapping[str, Any]) -> ModelValues:
    """Return settings that came as JSON.

    :raises InvalidRequestError: with every problem.
    """
    try:
        values: ModelValues = STRICT.structure(raw, ModelValues)
    except (CattrsError, ValueError) as error:
        faults = [(".".join(map(str, key)), why) for key, why in find_faults(error, ())]
        raise InvalidRequestError(
            "; ".join(f"{key}: {why}" for key, why in faults), param=faults[0][0]
        ) from error
    return values


def _read(file: Path) -> Saved:
    data = file.read_bytes()
    try:
        return msgspec.json.decode(data, type=Saved)
    except msgspec.DecodeError as error:
        aside = file.with_suffix(".damaged")
        log.error("model_settings_damaged", file=str(file), moved_to=str(aside), reason=str(error))
        file.replace(aside)
        return Saved()
