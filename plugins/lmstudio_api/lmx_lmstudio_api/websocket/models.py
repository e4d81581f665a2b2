"""Which model a client means: by a name, by what it was given when it loaded one, or any."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from attrs import define, field
from msgspec import Meta, Struct

from lmx_kernel.dialect.models import usable_model
from lmx_kernel.errors import ConflictError, ModelNotFoundError
from lmx_kernel.interfaces import Kernel, ModelStatus
from lmx_kernel.types import ModelCard, ModelName
from lmx_lmstudio_api.model_facts import VISION, state_of, statuses
from lmx_lmstudio_api.model_info import instance_info, kind_of
from lmx_lmstudio_api.websocket.errors import (
    DomainMismatchError,
    NoModelError,
    loaded_ids,
    naming_query,
)

Name = Annotated[str, Meta(min_length=1, max_length=1024)]


class Query(Struct, rename="camel", frozen=True):
    """Properties of a model; any has those that are not given."""

    identifier: Name | None = None
    path: Name | None = None
    domain: str | None = None
    vision: bool | None = None


class Specifier(Struct, rename="camel", frozen=True):
    """A model, as clients refer to it: by a query, or by what a load returned."""

    type: str
    query: Query | None = None
    instance_reference: Name | None = None

    @property
    def name(self) -> str | None:
        """The name that is meant; None for any model."""
        if self.instance_reference is not None or self.query is None:
            return self.instance_reference
        return self.query.identifier or self.query.path


@define
class Models:
    """The models, with the identifiers that clients gave to loads.

    A model has one instance; an identifier is another name of it until it is unloaded.
    """

    kernel: Kernel
    _identifiers: dict[str, str] = field(factory=dict, init=False)

    def find(self, name: str, kind: str) -> ModelName:
        """Return a model of one kind by its name.

        :raises NoModelError: there is none of that name.
        :raises ModelUnusableError: there is, but it cannot be loaded.
        :raises DomainMismatchError: it is of another kind.
        """
        with naming_query(self.kernel, name):
            found = self._given(name) or usable_model(self.kernel, name)
        if (actual := kind_of(found.card)) != kind:
            raise DomainMismatchError(found.card.id, actual, kind)
        return found

    def target(self, specifier: Specifier, kind: str) -> str:
        """Return by which name the kernel knows the model that a request is for.

        It need not be loaded, and may be known to a router only.

        :raises NoModelError: any is meant, and none is loaded.
        """
        name = specifier.name
        if name is None:
            return self._any(specifier, kind).card.id
        given = self._given(name)
        return given.card.id if given else name

    def loaded(self, specifier: Specifier, kind: str) -> tuple[ModelName, ModelStatus] | None:
        """Return a loaded model and its state; None if it is not loaded.

        :raises LmxError: as :meth:`find`.
        """
        name = specifier.name
        try:
            found = self._any(specifier, kind) if name is None else self.find(name, kind)
        except NoModelError:
            return None
        status = self.status(found.card)
        return None if status is None else (found, status)

    def status(self, card: ModelCard) -> ModelStatus | None:
        """Return the state of a model, None if it is not loaded."""
        status = statuses(self.kernel).get(card.id)
        return status if status and state_of(status) == "loaded" else None

    def instances(self, kind: str) -> list[dict[str, object]]:
        """Return the loaded models of one kind."""
        found = []
        for card in self.kernel.models():
            status = self.status(card)
            if status is not None and kind_of(card) == kind:
                found.append(instance_info(card, status, self._shown(card)))
        return found

    def check_free(self, identifier: str, card: ModelCard) -> None:
        """Check that a model may be called ``identifier``.

        :raises ConflictError: another one is.
        """
        owner = self._given(identifier)
        with suppress(ModelNotFoundError):
            owner = owner or ModelName(name=identifier, card=self.kernel.find(identifier))
        if owner is not None and owner.card.id != card.id:
            raise ConflictError(f"identifier: {owner.card.id} is called so", param="identifier")

    def give(self, identifier: str, card: ModelCard) -> None:
        """Let a loaded model be known by ``identifier`` instead of what it was given before."""
        for name in [one for one, model in self._identifiers.items() if model == card.id]:
            del self._identifiers[name]
        if identifier != card.id:
            self._identifiers[identifier] = card.id

    def not_found(self, specifier: Specifier) -> NoModelError:
        """Return the error for a model that is not loaded."""
        name = specifier.name
        what = "no model is loaded" if name is None else f'no model "{name[:200]}" is loaded'
        query = {} if name is None else {"identifier": name[:200]}
        return NoModelError(what, query, loaded_ids(self.kernel))

    def _any(self, specifier: Specifier, kind: str) -> ModelName:
        query = specifier.query or Query()
        for card in self.kernel.models():
            fits = kind_of(card) == kind and query.domain in (None, kind)
            sees = query.vision is None or query.vision == (VISION in card.capabilities)
            if fits and sees and self.status(card) is not None:
                return ModelName(name=self._shown(card), card=card)
        raise self.not_found(specifier)

    def _given(self, identifier: str) -> ModelName | None:
        """Return the loaded model that was given an identifier."""
        model = self._identifiers.get(identifier)
        if model is None:
            return None
        card = next((one for one in self.kernel.models() if one.id == model), None)
        if card is None or self.status(card) is None:
            del self._identifiers[identifier]
            return None
        return ModelName(name=identifier, card=card)

    def _shown(self, card: ModelCard) -> str:
        given = (name for name, model in self._identifiers.items() if model == card.id)
        return next(given, card.id)
