"""Chooses the model of a request that names `auto`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmx_kernel.api import Decision, GenerationRequest, ModelCard, Router, RoutingContext, hookimpl
from lmx_kernel.api.models import estimate_tokens

SHORT_TOKENS = 50


class Kept:
    """Sends short requests to the smallest models, others to those with the longest context."""

    name = "kept"

    def route(
        self, request: GenerationRequest, models: Sequence[ModelCard], context: RoutingContext
    ) -> Decision | None:
        """Return all models that can be loaded, best first; None leaves the request to others."""
        usable = [card for card in models if not card.problem]
        if request.model != "auto" or not usable:
            return None
        tokens = estimate_tokens(request.prompt)
        is_short = tokens < SHORT_TOKENS
        usable.sort(key=lambda card: card.size_bytes if is_short else -card.context_length)
        names = tuple(card.id for card in usable)
        return Decision(names, f"about {tokens} tokens", rule="short" if is_short else "long")


@hookimpl
def lmx_routers() -> Iterable[Router]:
    """Called once."""
    return [Kept()]
