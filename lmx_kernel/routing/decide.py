"""Asks the routers which model a request goes to, and checks whether a model can serve it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import structlog
from attrs import field, frozen, validators

from lmx_kernel.config import LIVE
from lmx_kernel.errors import (
    ContextOverflowError,
    ModelUnusableError,
    UnavailableError,
)
from lmx_kernel.interfaces import ModelState, Router, RoutingContext
from lmx_kernel.plugins.calls import Watch, unwatched
from lmx_kernel.types import (
    ChatPrompt,
    Decision,
    EmbeddingPrompt,
    GenerationRequest,
    ModelCard,
    Prompt,
    TokenPrompt,
)

BYTES_PER_TOKEN = 4
REFUSE = "refuse"
SAMPLE_CHARS = 16_384  # the bytes of a long text are estimated from so many characters
log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class RoutingSettings:
    """Section ``[routing]``.

    :ivar order: names of routers, in the order in which they are asked; others are not asked. Empty
        asks all routers, in the order of their names.
    :ivar unknown_model: the name that requests get instead of one that nobody has; ``refuse``
        refuses them.
    """

    order: tuple[str, ...] = field(default=(), metadata=LIVE)
    unknown_model: str = field(default=REFUSE, validator=validators.min_len(1), metadata=LIVE)


def arrange(routers: Sequence[Router], settings: RoutingSettings) -> list[Router]:
    """Return the routers to ask, in order; see :class:`RoutingSettings`."""
    by_name = {router.name: router for router in routers}
    return [by_name[name] for name in settings.order or sorted(by_name) if name in by_name]


def decide(
    routers: Iterable[Router],
    request: GenerationRequest,
    models: Sequence[ModelCard],
    context: RoutingContext,
    watch: Watch = unwatched,
) -> tuple[str, Decision] | None:
    """Return the first decision, with the name of its router; None if no router decides."""
    for router in routers:
        try:
            with watch("lmx_routers", router.name, "route"):
                decision = _checked(router.route(request, models, context))
        # Routers are code of plugins: they may fail in any way, and the next one is asked.
        except (Exception, SystemExit):
            log.exception("router_failed", router=router.name)
            continue
        if decision is not None:
            return router.name, decision
    return None


def _checked(decision: object) -> Decision | None:
    """Return what a router returned.

    :raises TypeError: it is no decision.
    """
    if decision is None:
        return None
    if not isinstance(decision, Decision) or not all(
        isinstance(name, str) for name in decision.models
    ):
        raise TypeError(f"route() returned {decision!r}, and not a Decision with names of models")
    return decision


def check(card: ModelCard, state: ModelState, prompt_tokens: int, max_wait_s: float) -> None:
    """Check that a model can serve a request, as far as that is known before it is queued.

    :param prompt_tokens: the estimated length of the prompt; 0 skips that check.
    :param max_wait_s: how long the request may wait until it starts.
    :raises LmxError: it cannot, with the reason.
    """
    if card.problem:
        raise ModelUnusableError(card.problem)
    if prompt_tokens >= state.context_length:
        raise ContextOverflowError(
            f"about {prompt_tokens} tokens do not fit its maximum context length of "
            f"{state.context_length}",
            figures={"tokens": prompt_tokens, "limit": state.context_length},
        )
    if state.problem:
        raise UnavailableError(state.problem, retry_after_s=10)
    if state.wait_s > max_wait_s:
        raise UnavailableError(
            f"it could begin in {state.wait_s:.1f} s, and {max_wait_s:g} s are allowed",
            retry_after_s=10,
        )


def estimate_tokens(prompt: Prompt) -> int:
    """Return the estimated number of tokens of a prompt: a quarter of its bytes."""
    if isinstance(prompt, TokenPrompt):
        return len(prompt.tokens)
    if isinstance(prompt, EmbeddingPrompt):
        return max(map(estimate_tokens, prompt.inputs), default=0)
    if not isinstance(prompt, ChatPrompt):
        return _bytes_of(prompt.text) // BYTES_PER_TOKEN
    texts = (getattr(part, "text", "") for turn in prompt.messages for part in turn.parts)
    tools = (msgspec.json.encode(tool.parameters) for tool in prompt.tools if not tool.hidden)
    size_bytes = sum(map(_bytes_of, texts)) + sum(map(len, tools))
    return size_bytes // BYTES_PER_TOKEN


def _bytes_of(text: str) -> int:
    if text.isascii():
        return len(text)
    step = len(text) // SAMPLE_CHARS + 1
    return len(text[::step].encode("utf-8", "surrogatepass")) * step
