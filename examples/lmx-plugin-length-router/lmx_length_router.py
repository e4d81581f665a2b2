"""Sends short prompts to the smallest model and long ones to the one with the longest context."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, field, frozen, validators

from lmx_kernel.api import (
    LIVE,
    Decision,
    GenerationRequest,
    ModelCard,
    Router,
    RoutingContext,
    Settings,
    SettingsSection,
    hookimpl,
)
from lmx_kernel.api.models import estimate_tokens


@frozen(kw_only=True)
class LengthSettings:
    """Section ``[length_router]``.

    :ivar short_tokens: prompts of fewer tokens than this are short.
    """

    short_tokens: int = field(default=500, validator=validators.ge(0), metadata=LIVE)


@define
class LengthRouter:
    """Decides for requests that ask for ``auto``, by the length of their prompts."""

    settings: Settings
    name: str = "length"

    def route(
        self, request: GenerationRequest, models: Sequence[ModelCard], context: RoutingContext
    ) -> Decision | None:
        """Return all models in the order of their fitness; the kernel takes the first that can."""
        if request.model != "auto":
            return None
        tokens = estimate_tokens(request.prompt)
        is_short = tokens < self.settings.get(LengthSettings).short_tokens
        usable = [card for card in models if not card.problem]
        usable.sort(key=lambda card: card.size_bytes if is_short else -card.context_length)
        rule = "short" if is_short else "long"
        return Decision(tuple(card.id for card in usable), f"about {tokens} tokens", rule=rule)


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """The section ``[length_router]``."""
    return [SettingsSection("length_router", LengthSettings)]


@hookimpl
def lmx_routers(settings: Settings) -> Iterable[Router]:
    """The router ``length``."""
    return [LengthRouter(settings)]
