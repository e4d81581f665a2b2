"""Requests that name a draft model."""

from __future__ import annotations

from attrs import evolve, frozen

from lmx_kernel.errors import InvalidRequestError, LmxError
from lmx_kernel.models.catalogue import Catalogue
from lmx_kernel.runtime.lifecycle import Lifecycle
from lmx_kernel.types import GenerationRequest, ModelCard


@frozen
class DraftRequests:
    """Checks the draft models that requests name, before anything is loaded for them."""

    _catalogue: Catalogue
    _lifecycle: Lifecycle

    async def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return a request with the id of its draft model. Where routing chooses the model, or the
        prompt is only counted, there is none; an answer that is continued goes on without one that
        is gone.

        :raises InvalidRequestError: there is no such model, or it cannot draft for the other, or
            does not fit into memory beside it.
        """
        if not request.draft_model or request.max_tokens == 0:
            return evolve(request, draft_model="") if request.draft_model else request
        try:
            draft = await self._catalogue.find_fresh(request.draft_model)
            model = self._catalogue.known_id(request.model)
            if model:
                await self._lifecycle.check_draft_model(self._catalogue.find(model), draft)
        except LmxError as error:
            if request.said:
                return evolve(request, draft_model="")
            raise InvalidRequestError(
                f"draft_model: {error.message}", param="draft_model"
            ) from error
        return evolve(request, draft_model=draft.id if model else "")

    def for_model(self, request: GenerationRequest, card: ModelCard) -> GenerationRequest:
        """Return a request for the model that routing chose: what drafts for another one was not
        checked for it.
        """
        if request.draft_model and card.id != self._catalogue.known_id(request.model):
            return evolve(request, draft_model="")
        return request
