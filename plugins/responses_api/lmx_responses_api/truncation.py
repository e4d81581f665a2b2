"""Conversations that are too long, shortened from their beginning."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import ChatPrompt, GenerationRequest, Message

ANSWER_TOKENS = 1024  # room that is left for an answer without a limit
_KEPT = frozenset({"system", "developer"})


async def shortened(kernel: Kernel, request: GenerationRequest) -> GenerationRequest:
    """Return ``request`` with as many messages as fit its model's context.

    The oldest are dropped first; never instructions (the roles system and developer), nor the last
    message, or the last call with its results. Results of calls that are dropped are dropped with
    them. Room is left for the answer,
    but for no more than a quarter of the context. The tokens are counted about as often as the
    number of messages has binary digits. A request that is still too long is refused where it is
    generated.

    :raises LmxError: as :meth:`Kernel.count_tokens`.
    """
    prompt = request.prompt
    assert isinstance(prompt, ChatPrompt)
    count = await kernel.count_tokens(request)
    context = await _context_length(kernel, request)
    wanted = ANSWER_TOKENS if request.max_tokens is None else request.max_tokens
    most = context - min(wanted, context // 4)
    if count <= most:
        return request

    def without(dropped: int) -> GenerationRequest:
        return evolve(request, prompt=evolve(prompt, messages=_rest(prompt.messages, dropped)))

    fewest, all_but_one = 1, _droppable(prompt.messages)
    while fewest < all_but_one:
        tried = (fewest + all_but_one) // 2
        if await kernel.count_tokens(without(tried)) <= most:
            all_but_one = tried
        else:
            fewest = tried + 1
    return without(fewest)


async def _context_length(kernel: Kernel, request: GenerationRequest) -> int:
    """Return the context of the model that answers, which counting has loaded."""
    route = await kernel.explain(request)
    loaded = {model.id: model.context_length for model in kernel.model_statuses()}
    model = route.model or request.model
    return loaded[model] if model in loaded else kernel.find(model).context_length


def _end(messages: Sequence[Message]) -> int:
    """Return where the messages begin that are kept in any case."""
    return max((i for i, message in enumerate(messages) if message.role != "tool"), default=0)


def _droppable(messages: Sequence[Message]) -> int:
    return sum(message.role not in _KEPT for message in messages[: _end(messages)])


def _rest(messages: Sequence[Message], dropped: int) -> tuple[Message, ...]:
    """Return ``messages`` without the first ``dropped`` of those that may be dropped."""
    rest: list[Message] = []
    calls: set[str] = set()  # whose results are dropped
    end = _end(messages)
    for message in messages[:end]:
        is_orphan = message.role == "tool" and message.tool_call_id in calls
        if message.role in _KEPT:
            rest.append(message)
            continue
        if dropped > 0 or is_orphan:
            calls |= {call.id for call in message.tool_calls}
        else:
            rest.append(message)
        dropped -= 1
    return (*rest, *messages[end:])
