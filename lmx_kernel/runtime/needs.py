"""What a load needs: memory, and files that can be used."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from lmx_kernel.interfaces import HasVocabulary
from lmx_kernel.memory.ledger import Ledger
from lmx_kernel.models.backends import Backends
from lmx_kernel.plugins.timeouts import in_thread
from lmx_kernel.runtime.draft_models import cannot_draft
from lmx_kernel.runtime.measure import measure_memory
from lmx_kernel.types import EngineSpec, MemoryEstimate

CLOSE_CALL = 0.8  # an estimate above this share of what is free is replaced by an exact figure


@frozen
class Needs:
    """Asks the backends what loads need. A draft model is loaded with the model that it is for."""

    _backends: Backends
    _ledger: Ledger

    def env(self, spec: EngineSpec) -> Mapping[str, str]:
        """Return the environment that the backend wants for its worker. May be slow."""
        return self._backends.get(spec.card.backend).worker_env(spec.settings)

    async def bytes(self, spec: EngineSpec) -> int:
        """Check the files and return the memory of a load.

        :raises ModelUnusableError: files are unusable, or the draft model has another vocabulary.
        """
        backend = self._backends.get(spec.card.backend)
        await in_thread(backend.verify, spec.card)
        await self.check_draft_model(spec)
        estimate = await self.estimate(spec)
        if estimate.total_bytes <= self._ledger.available_bytes * CLOSE_CALL:
            return estimate.total_bytes
        exact = await measure_memory(spec, await in_thread(self.env, spec))
        return estimate.total_bytes if exact is None else exact

    async def estimate(self, spec: EngineSpec) -> MemoryEstimate:
        """Return the memory of a load from metadata alone.

        :raises ModelUnusableError: files are unusable.
        """
        backend = self._backends.get(spec.card.backend)
        own = await in_thread(backend.estimate, spec.card, spec.options, spec.settings)
        if spec.draft_model is None:
            return own
        other = await self.estimate(spec.draft_model)
        return MemoryEstimate(
            weights_bytes=own.weights_bytes + other.weights_bytes,
            cache_bytes=own.cache_bytes + other.cache_bytes,
            overhead_bytes=own.overhead_bytes + other.overhead_bytes,
        )

    async def check_draft_model(self, spec: EngineSpec) -> None:
        """Check the files of a draft model, and that its vocabulary is that of the model.

        :raises ModelUnusableError: its files are unusable, or it has another vocabulary.
        """
        if spec.draft_model is None:
            return
        model, draft = spec.card, spec.draft_model.card
        backend = self._backends.get(draft.backend)
        await in_thread(backend.verify, draft)
        if not isinstance(backend, HasVocabulary):
            raise cannot_draft(
                draft, model, f"models of the backend {draft.backend} draft for none"
            )
        if await in_thread(backend.vocabulary, model) != await in_thread(backend.vocabulary, draft):
            raise cannot_draft(draft, model, "their vocabularies differ")
