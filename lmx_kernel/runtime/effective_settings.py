"""What is in force for each model, by everyone who may set something."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen
from cattrs.errors import CattrsError

from lmx_kernel.config import Settings
from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.hookspecs import CONSTRAINT_SECTION
from lmx_kernel.models.backends import Backends
from lmx_kernel.models.layers import (
    UNSET,
    Layer,
    Values,
    flat,
    load_options,
    maker_layer,
    part,
    resolve,
)
from lmx_kernel.models.model_table import ModelTables, Profile, fits
from lmx_kernel.models.names import folded
from lmx_kernel.models.request_defaults import RequestDefaults
from lmx_kernel.models.saved_settings import SavedSettings
from lmx_kernel.models.template_file import read_template
from lmx_kernel.prefixes.folder import FOLDER
from lmx_kernel.prefixes.settings import CacheSettings
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.types import (
    EngineSpec,
    GenerationRequest,
    LoadOptions,
    LoadOverrides,
    ModelCard,
    ModelName,
    PrefixStoreOptions,
    SettingValue,
)

LMX = "LMX"
GENERAL = ("context_length", "parallel", "cache_tokens", "ttl_s")
"""Keys of ``[models]`` that a table may set for one model."""


@frozen
class _Known:
    """The settings of a model under one profile, and all that they were found from."""

    facts: tuple[Any, ...]
    values: Values
    defaults: RequestDefaults


class EffectiveSettings:
    """Resolves the settings of models. What it finds is kept until something changes."""

    def __init__(self, settings: Settings, backends: Backends, saved: SavedSettings) -> None:
        self._settings = settings
        self._backends = backends
        self._saved = saved
        self._known: dict[tuple[str, str], _Known] = {}
        self._names: tuple[tuple[Any, ...], dict[str, ModelName]] = ((), {})

    # --- settings ---

    def of(self, card: ModelCard, profile: str = "", load: LoadOverrides | None = None) -> Values:
        """Return the settings of a model, by key.

        :param profile: the profile that a request names; "" for none.
        :param load: what the model's load asked for.
        """
        if load is not None:
            return self._resolved(card, profile, load)
        return self._lookup(card, profile).values

    def complete(self, request: GenerationRequest, card: ModelCard, name: str) -> GenerationRequest:
        """Return a request with the settings of the model wherever it leaves something open.

        :param name: by which the model was found; it may name a profile.
        """
        return self._lookup(card, self.profile_of(name, card)).defaults.complete(request)

    def options(self, card: ModelCard, load: LoadOverrides | None = None) -> LoadOptions:
        """Return how a model is loaded."""
        return load_options(self.of(card, load=load), card)

    def spec(self, card: ModelCard, load: LoadOverrides | None = None) -> EngineSpec:
        """Return what a worker needs to load a model.

        :raises ModelUnusableError: the file of its chat template cannot be read, or a value is
            none that its backend takes.
        """
        values = self.of(card, load=load)
        try:
            settings = self._backends.settings_of(card.backend, self._backend_keys(card, values))
        except (CattrsError, ValueError) as error:  # set when another version was installed
            raise ModelUnusableError(f"{card.id}: its settings: {error}") from error
        return EngineSpec(
            card=card,
            options=load_options(values, card),
            settings=settings,
            engine_module=self._backends.engine_module_of(card.backend),
            chat_template=_template(card, values),
            chat_format=values["format"].value or "",
            constraints=self._backends.settings_of(CONSTRAINT_SECTION),
            prefix_store=self._prefix_store(),
            drafts=values["drafts"].value,
            reproducible=values["reproducible"].value,
        )

    # --- names ---

    def names(self, cards: Mapping[str, ModelCard]) -> Mapping[str, ModelName]:
        """Return the names that the owner gave to models and their profiles, as
        :func:`~lmx_kernel.models.names.folded`.

        :param cards: all models by id; the result is kept as long as it is the same object.
        """
        facts = (cards, self._settings.get(ModelTables), self._saved.saved)
        if not _are_same(self._names[0], facts):
            given = {folded(name.name): name for name in self._given(cards)}
            for model in cards:  # no name that is given takes a model's own
                given.pop(folded(model), None)
            self._names = facts, given
        return self._names[1]

    def profile_of(self, name: str, card: ModelCard) -> str:
        """Return the profile that a model's name asks for; "" for none."""
        found = self._names[1].get(folded(name))
        return found.profile if found is not None and found.card.id == card.id else ""

    def listed(self, cards: Mapping[str, ModelCard]) -> list[ModelName]:
        """Return the names of the models that lists show: their ids, and those that were given."""
        shown = {
            key: card
            for key, card in cards.items()
            if card.problem is None and not self.of(card)["hidden"].value
        }
        given = self.names(cards).values()
        ids = [ModelName(name=key, card=card) for key, card in shown.items()]
        others = [one for one in given if one.card.id in shown and _is_full(one)]
        return sorted([*ids, *others], key=lambda one: (one.card.id, one.name != one.card.id))

    def backend_of(self, card: ModelCard) -> str | None:
        """Return the backend that is to run a model where several could."""
        backend: str | None = self.of(card)["backend"].value
        return backend

    # --- inside ---

    def _prefix_store(self) -> PrefixStoreOptions | None:
        cache = self._settings.get(CacheSettings)
        if cache.disk_bytes == 0:
            return None
        return PrefixStoreOptions(
            folder=self._settings.home / FOLDER,
            limit_bytes=cache.disk_bytes,
            ttl_s=cache.disk_ttl_s,
        )

    def _lookup(self, card: ModelCard, profile: str) -> _Known:
        facts = self._facts(card)
        known = self._known.get((card.id, profile))
        if known is None or not _are_same(known.facts, facts):
            values = self._resolved(card, profile, None)
            known = _Known(facts, values, RequestDefaults.of(values))
            self._known[card.id, profile] = known
        return known

    def _facts(self, card: ModelCard) -> tuple[Any, ...]:
        get = self._settings.get
        return card, get(ModelTables), get(ModelSettings), self._saved.saved

    def _resolved(self, card: ModelCard, profile: str, load: LoadOverrides | None) -> Values:
        values = resolve(self._layers(card, profile, load))
        values["context_length"] = _fitted(values["context_length"], card.context_length)
        options = load_options(values, card)
        values["cache_tokens"] = evolve(values["cache_tokens"], value=options.cache_tokens)
        return values

    def _layers(self, card: ModelCard, profile: str, load: LoadOverrides | None) -> Iterator[Layer]:
        owners = list(self._owner_layers(card))
        if profile:
            key = f"profiles.{profile}"
            found = next((one.values[key] for one in owners if key in one.values), Profile())
            yield Layer(f"profile {profile}", flat(found))
        if load is not None:
            yield Layer("load request", _asked(load))
        yield from owners
        if load is not None:  # what is loaded by request stays, unless the owner says otherwise
            yield Layer("load request", {"ttl_s": load.ttl_s or 0.0})
        yield maker_layer(card)
        yield from self._section_layers(card)

    def _owner_layers(self, card: ModelCard) -> Iterator[Layer]:
        yield Layer("api", flat(self._saved.values(card.id)))
        tables = self._settings.get(ModelTables).tables
        for number in range(len(tables), 0, -1):
            if fits(tables[number - 1].match, card.id):
                yield Layer(f"config table {number}", flat(tables[number - 1]))

    def _section_layers(self, card: ModelCard) -> Iterator[Layer]:
        models, default = self._settings.get(ModelSettings), ModelSettings()
        general = {key: getattr(models, key) for key in GENERAL}
        changed = {key: one for key, one in general.items() if one != getattr(default, key)}
        yield Layer("config [models]", changed)
        yield Layer(f"config [{card.backend}]", self._backends.changed_keys(card.backend))
        yield Layer(LMX, {**general, **self._backends.settings_of(card.backend), **UNSET})

    def _backend_keys(self, card: ModelCard, values: Values) -> dict[str, Any]:
        """Return the keys of the backend's section that somebody set for this model."""
        given = {key for layer in self._owner_layers(card) for key in layer.values}
        own = (key for key in given if key not in UNSET and key not in GENERAL)
        return {key: values[key].value for key in own}

    def _given(self, cards: Mapping[str, ModelCard]) -> Iterator[ModelName]:
        """Yield the names that the owner gave; of one name the last counts."""
        aliases: dict[str, tuple[int, ModelCard, str]] = {}
        for card in reversed(list(cards.values())):
            found = self.of(card)["aliases"]
            rank = _rank(found)
            for alias in found.value:
                if rank >= aliases.get(alias.casefold(), (0, card, ""))[0]:
                    aliases[alias.casefold()] = rank, card, alias
        parts = [key.rpartition("/")[2].casefold() for key in cards]
        for card in cards.values():
            short = card.id.rpartition("/")[2]
            own = [alias for _, one, alias in aliases.values() if one is card]
            bases = [*([short] if parts.count(short.casefold()) == 1 else ()), *own, card.id]
            yield from (ModelName(name=alias, card=card) for alias in own)
            for profile in part(self.of(card), "profiles"):
                for base in bases:
                    yield ModelName(name=f"{base}:{profile}", card=card, profile=profile)


def _is_full(name: ModelName) -> bool:
    """Return whether a name is an alias, or a profile's after the model's whole id."""
    return not name.profile or name.name == f"{name.card.id}:{name.profile}"


def _rank(value: SettingValue) -> int:
    """Return how much a source counts among tables."""
    number = value.source.rpartition(" ")[2]
    return int(number) if number.isdecimal() else 1 << 30


def _asked(load: LoadOverrides) -> dict[str, Any]:
    asked = {
        "context_length": load.context_length,
        "parallel": load.parallel,
        "ttl_s": load.ttl_s,
        "pinned": load.pinned or None,
    }
    return {key: value for key, value in asked.items() if value is not None}


def _fitted(value: SettingValue, most: int) -> SettingValue:
    return value if value.value <= most else SettingValue(most, "model's file")


def _template(card: ModelCard, values: Values) -> str:
    path = values["chat_template"].value
    if path is None:
        return ""
    try:
        return read_template(path)
    except ValueError as error:
        raise ModelUnusableError(f"{card.id}: chat_template: {error}") from error


def _are_same(known: Sequence[object], facts: Sequence[object]) -> bool:
    return len(known) == len(facts) and all(map(operator.is_, known, facts))
