"""Shows and changes the settings of single models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.interfaces import ModelSettingsStore, ModelSettingsView
from lmx_kernel.kernel.model_table_checks import faults_of
from lmx_kernel.models.backends import Backends
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.models.layers import NESTED, UNSET, flat
from lmx_kernel.models.model_table import ModelValues, Profile
from lmx_kernel.models.saved_settings import SavedSettings
from lmx_kernel.runtime.effective_settings import EffectiveSettings
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.types import GenerationRequest, LoadOverrides, ModelCard, ModelName, SettingValue

WITH_THE_LOAD = ("context_length", "parallel", "cache_tokens", "chat_template", "format", "backend",
                 "reproducible")  # fmt: skip
"""Settings that a loaded model has as it was loaded, beside those of its backend."""


class ModelSettingsEditor(ModelSettingsStore):
    """Implements :class:`lmx_kernel.interfaces.ModelSettingsStore`."""

    def __init__(
        self,
        catalogue: Catalogue,
        lifecycle: Lifecycle,
        effective: EffectiveSettings,
        saved: SavedSettings,
        backends: Backends,
    ) -> None:
        self._catalogue = catalogue
        self._lifecycle = lifecycle
        self._effective = effective
        self._saved = saved
        self._backends = backends

    def names(self) -> list[ModelName]:
        return self._effective.listed(self._catalogue.by_id)

    def show(self, name: str) -> ModelSettingsView:
        return self._view(self._catalogue.find(name), name)

    async def change(self, name: str, wanted: Mapping[str, Any]) -> ModelSettingsView:
        return await self._change(name, wanted)

    async def reset(self, name: str) -> ModelSettingsView:
        return await self._change(name, None)

    def complete(self, request: GenerationRequest, card: ModelCard, name: str) -> GenerationRequest:
        """Return a request with the settings of the model wherever it leaves something open."""
        return self._effective.complete(request, card, name)

    def autoload(self) -> list[str]:
        """Return the ids of the models whose settings say that they are loaded at the start."""
        cards = self._catalogue.cards
        return [card.id for card in cards if self._effective.of(card)["autoload"].value]

    async def keep_load(self, model: str, overrides: LoadOverrides) -> None:
        """Keep what a load by request asked for, until the model is unloaded by request."""
        await self._saved.keep_load(model, overrides)

    def put_in_force(self) -> None:
        """Pass on new settings to the parts that keep some of them."""
        self._catalogue.rearrange()
        self._lifecycle.refresh()

    # --- inside ---

    async def _change(self, name: str, wanted: Mapping[str, Any] | None) -> ModelSettingsView:
        model = self._catalogue.find(name).id
        before = self._view(self._catalogue.find(model), model).settings
        await self._saved.change(model, wanted, self._check)
        self.put_in_force()
        card = self._catalogue.find(model)
        view = self._view(card, model)
        if not self._needs_reload(card):
            return view
        at_once = {*UNSET, "ttl_s"} - {*WITH_THE_LOAD}
        changed = (
            key
            for key in view.settings.keys() | before.keys()
            if view.settings.get(key) != before.get(key)
        )
        waiting = sorted(
            key for key in changed if key not in at_once and key.partition(".")[0] not in NESTED
        )
        return attrs.evolve(view, needs_reload=tuple(waiting))

    def _needs_reload(self, card: ModelCard) -> bool:
        """Return whether a model is loaded with other options than are in force now."""
        instance = self._lifecycle.instances.get(card.id)
        if instance is None or not instance.memory_bytes:
            return False
        return instance.spec != self._effective.spec(card, self._lifecycle.overrides(card.id))

    def _view(self, card: ModelCard, name: str) -> ModelSettingsView:
        profile = self._effective.profile_of(name, card)
        values = self._effective.of(card, profile, self._lifecycle.overrides(card.id))
        return ModelSettingsView(
            model=card.id,
            settings={key: _plain(one) for key, one in sorted(values.items())},
            saved=self._saved.saved.settings.get(card.id, {}),
        )

    def _check(self, values: ModelValues) -> None:
        faults = list(faults_of(values, self._backends))
        if faults:
            text = "; ".join(f"{'.'.join(map(str, key))}: {why}" for key, why in faults)
            raise InvalidRequestError(text, param=str(faults[0][0][0]))


def _plain(one: SettingValue) -> SettingValue:
    """Return a setting whose value JSON can express."""
    value = flat(one.value) if isinstance(one.value, Profile) else one.value
    return SettingValue(msgspec.to_builtins(value, enc_hook=os.fspath), one.source)
