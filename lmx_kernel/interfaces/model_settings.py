"""Settings of single models: who has set what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from lmx_kernel.types import ModelName, SettingValue


@frozen(kw_only=True)
class ModelSettingsView:
    """The settings in force for a model. What a request asks for counts before all of them.

    :ivar settings: by key, such as ``sampling.temperature``, each with who has set it.
    :ivar saved: what the API has set, as it got it.
    :ivar needs_reload: keys whose new values count from the model's next load on.
    """

    model: str
    settings: dict[str, SettingValue]
    saved: dict[str, Any]
    needs_reload: tuple[str, ...] = ()


class ModelSettingsStore(Protocol):
    """The settings of each model."""

    def names(self) -> Sequence[ModelName]:
        """Return the names for lists: of each model that can be loaded and is not hidden its id,
        the aliases that its owner gave it, and its profiles.
        """
        ...

    def show(self, name: str) -> ModelSettingsView:
        """Return the settings of a model; those of a profile if ``name`` names one.

        :raises ModelNotFoundError: names the models there are.
        """
        ...

    async def change(self, name: str, wanted: Mapping[str, Any]) -> ModelSettingsView:
        """Change settings of a model, all or none; they survive a restart.

        :param wanted: by the keys of a table ``[[model]]``, as a JSON merge patch (RFC 7396): null
            takes a key back.
        :raises ModelNotFoundError: names the models there are.
        :raises InvalidRequestError: with every problem; nothing changed.
        """
        ...

    async def reset(self, name: str) -> ModelSettingsView:
        """Take back all that :meth:`change` has set for a model.

        :raises ModelNotFoundError: names the models there are.
        """
        ...
