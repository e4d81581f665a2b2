"""Which model drafts for which: by the settings of the model, or because a request names it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field

from lmx_kernel.engine.drafts import COPY
from lmx_kernel.errors import InvalidRequestError, LmxError, ModelUnusableError
from lmx_kernel.hookspecs import DRAFT_GROUP
from lmx_kernel.plugins.entry_points import entry_points
from lmx_kernel.runtime.effective_settings import EffectiveSettings
from lmx_kernel.types import EngineSpec, LoadOptions, ModelCard

EMBEDDING = "embedding"


@define(eq=False)
class DraftModels:
    """Adds the draft model to what a worker loads.

    A draft model that only a request names is loaded with the model, until that is unloaded.

    :param find: returns the model of a name, or raises LmxError.
    """

    _find: Callable[[str], ModelCard]
    _effective: EffectiveSettings
    _asked: dict[str, str] = field(factory=dict, init=False)

    def ask(self, model: str, draft: str, *, is_loaded: bool) -> None:
        """Note the draft model that a request names for a model; "" for none, which leaves a model
        that is loaded as it is.
        """
        if draft or not is_loaded:
            self._asked[model] = draft

    def add_to(self, spec: EngineSpec) -> EngineSpec:
        """Return how a model is loaded with its draft model, if it has one.

        :raises ModelUnusableError: its settings name one that cannot draft for it.
        """
        name = _named(spec)
        try:
            if draft := name or self._asked.get(spec.card.id):
                return self._with(spec, name, self._find(draft))
        except LmxError as error:
            raise ModelUnusableError(f"{spec.card.id}: drafts: {error.message}") from error
        return spec

    def with_asked(self, spec: EngineSpec, draft: ModelCard) -> EngineSpec:
        """Return how a model is loaded with a draft model that a request names.

        :raises InvalidRequestError: its owner has chosen another one, or none.
        :raises ModelUnusableError: it cannot draft for the model.
        """
        name = _named(spec)
        if spec.drafts == () or (name and self._find(name).id != draft.id):
            chosen = f"{name} drafts" if name else "nothing drafts"
            raise InvalidRequestError(
                f"{chosen} for {spec.card.id}, as its settings say", param="draft_model"
            )
        return self._with(spec, name, draft)

    def _with(self, spec: EngineSpec, name: str, draft: ModelCard) -> EngineSpec:
        """Return ``spec`` with a draft model, which its settings call ``name``."""
        _check(spec.card, draft)
        own = self._effective.spec(draft)
        options = LoadOptions(
            context_length=min(draft.context_length, spec.options.context_length),
            parallel=spec.options.parallel,
            cache_tokens=spec.options.cache_tokens,
        )
        model = evolve(own, options=options, drafts=(), prefix_store=None)
        names = tuple(draft.id if one == name else one for one in spec.drafts or ())
        drafts = None if spec.drafts is None else names
        return evolve(spec, draft_model=model, drafts=drafts)


def _named(spec: EngineSpec) -> str:
    """Return the draft model that the settings of a model name; "" for none."""
    names = (name for name in spec.drafts or () if name != COPY)
    return next((name for name in names if not entry_points(DRAFT_GROUP, name)), "")


def _check(model: ModelCard, draft: ModelCard) -> None:
    """Check what is known of two models without reading their files again.

    :raises ModelUnusableError: the one cannot draft for the other.
    """
    problem = ""
    if draft.problem:
        problem = f"it cannot be used: {draft.problem}"
    elif draft.backend != model.backend:
        problem = f"it is a model of the backend {draft.backend}, not of {model.backend}"
    elif EMBEDDING in draft.capabilities:
        problem = "it makes embeddings"
    if problem:
        raise cannot_draft(draft, model, problem)


def cannot_draft(draft: ModelCard, model: ModelCard, why: str) -> ModelUnusableError:
    """Return the error for a model that cannot draft for another one."""
    return ModelUnusableError(f"{draft.id} cannot draft for {model.id}: {why}")
