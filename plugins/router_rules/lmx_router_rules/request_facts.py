"""What a request shows, worked out when a rule asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b

from lmx_kernel.interfaces import RoutingContext
from lmx_kernel.routing.decide import estimate_tokens
from lmx_kernel.types import ChatPrompt, EmbeddingPrompt, GenerationRequest, Message, TextPrompt
from lmx_router_rules.settings import Task
from lmx_router_rules.task import classify, has_images, has_tools, text_of

PREFIX_CHARS = 4096


class RequestFacts:
    """A request and what is around it, as rules see them.

    :ivar context: who asks, when, and what the models do.
    """

    def __init__(
        self, request: GenerationRequest, context: RoutingContext, long_tokens: int
    ) -> None:
        self.request = request
        self.context = context
        self._long_tokens = long_tokens

    @cached_property
    def task(self) -> Task:
        """What it is about."""
        return classify(self.request, self._long_tokens)

    @cached_property
    def tokens(self) -> int:
        """Tokens of the prompt, as estimated."""
        return estimate_tokens(self.request.prompt)

    @cached_property
    def has_tools(self) -> bool:
        """Whether the model may call tools."""
        return has_tools(self.request)

    @cached_property
    def has_images(self) -> bool:
        """Whether a message has an image."""
        return has_images(self.request)

    @property
    def is_structured(self) -> bool:
        """Whether the answer must have a form."""
        return self.request.constraint is not None

    @property
    def has_system(self) -> bool:
        """Whether there is a system text."""
        return any(turn.role == "system" for turn in self._turns)

    @cached_property
    def wants_embeddings(self) -> bool:
        """Whether vectors are wanted and no text."""
        return isinstance(self.request.prompt, EmbeddingPrompt)

    @property
    def key(self) -> str:
        """The name of the API key, "" for none."""
        return self.context.caller.key if self.context.caller else ""

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """What the client is known by: its address, and what it calls itself."""
        caller = self.context.caller
        return (caller.client, self.headers.get("user-agent", "")) if caller else ()

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers; their names are lower case."""
        return self.context.caller.headers if self.context.caller else {}

    @cached_property
    def minute(self) -> int:
        """The local time, in minutes since midnight."""
        return self.context.now.hour * 60 + self.context.now.minute

    @cached_property
    def beginning(self) -> bytes:
        """What all turns of a conversation have in common, as a hash: its system text and its first
        question.
        """
        prompt = self.request.prompt
        if isinstance(prompt, ChatPrompt):
            first = next((n for n, turn in enumerate(prompt.messages) if turn.role == "user"), 0)
            texts = [text_of(turn)[:PREFIX_CHARS] for turn in prompt.messages[: first + 1]]
        else:
            texts = [prompt.text[:PREFIX_CHARS]] if isinstance(prompt, TextPrompt) else []
        return blake2b("\0".join(texts).encode(errors="replace"), digest_size=16).digest()

    @property
    def _turns(self) -> tuple[Message, ...]:
        prompt = self.request.prompt
        return prompt.messages if isinstance(prompt, ChatPrompt) else ()
