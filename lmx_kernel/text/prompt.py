"""Requests to tokens, with every check that only the model's own vocabulary and limits allow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from attrs import evolve

from lmx_kernel.engine.protocol import Tokenizer
from lmx_kernel.errors import ContextOverflowError, InvalidRequestError
from lmx_kernel.text.chat_encoder import ChatEncoder
from lmx_kernel.text.formats.protocol import Format, find_format, offered_tools
from lmx_kernel.text.template import ChatTemplate
from lmx_kernel.types import (
    ChatPrompt,
    EmbeddingInput,
    EngineLimits,
    GenerationRequest,
    Prompt,
    TextPrompt,
    TokenPrompt,
)

MOST_COUNTED_BYTES = 4 << 20
"""Of a text that is just counted, where the context holds less."""

LEAST_LONGEST_BYTES = 128
"""Taken for the longest token's where the vocabulary has none as long: some tokenizers drop white
space and accents, so that a text may have more bytes than its tokens."""

TYPICAL_TOKEN_BYTES = 4

MAXIMUM = "maximum context length"
"""Some clients know a prompt that is too long by these words, and not by the error's code."""


class PromptEncoder:
    """Turns the requests of one model into tokens. Its calls may come from any thread.

    :param chat_format: of the model; found by its template if not given.
    :param template: replaces the tokenizer's own chat template; "" for its own.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        limits: EngineLimits,
        chat_format: Format | None = None,
        template: str = "",
    ) -> None:
        self._tokenizer = tokenizer
        self._limits = limits
        source = template or tokenizer.chat_template
        self._format = chat_format or find_format(source)
        self._chat = _chat(tokenizer, source, self._format)
        longest = max(map(len, tokenizer.token_bytes), default=0)
        self._most_bytes = limits.context_length * max(longest, LEAST_LONGEST_BYTES)

    def encode(self, request: GenerationRequest) -> list[int]:
        """Return the prompt's tokens.

        :raises ContextOverflowError: the prompt alone is longer than the context, and not just
            counted.
        :raises InvalidRequestError: no chat template, a token id outside the vocabulary, no prompt.
        """
        self._check_size(request, "the prompt", request.prompt)
        if isinstance(request.prompt, ChatPrompt):
            tokens = self._chat_tokens(request.prompt, request)
        else:
            tokens = self._tokens(request.prompt)
        self._check_ids("prompt", tokens)
        self._check_ids("logit_bias", request.sampling.logit_bias or ())
        if not tokens:
            raise InvalidRequestError("the prompt is empty", param="prompt")
        limit = request.context_length(self._limits.context_length)
        if len(tokens) > limit and request.max_tokens != 0:
            raise ContextOverflowError(
                f"the prompt is too long: {len(tokens)} tokens, and the {MAXIMUM} is {limit} "
                "tokens",
                param=_param(request.prompt),
                figures={"tokens": len(tokens), "limit": limit},
            )
        return tokens

    def text(self, request: GenerationRequest) -> str:
        """Return the text of a prompt that :meth:`encode` takes, as the model reads it.

        :raises InvalidRequestError: as :meth:`encode`.
        """
        prompt = request.prompt
        if isinstance(prompt, TextPrompt):
            return prompt.text
        if isinstance(prompt, ChatPrompt) and not isinstance(self._chat, str):
            return self._chat.text(_presented(prompt, request))
        pieces = (self._tokenizer.token_bytes[token] for token in self.encode(request))
        return b"".join(pieces).decode(errors="replace")

    def encode_inputs(
        self, request: GenerationRequest, inputs: Sequence[EmbeddingInput]
    ) -> list[list[int]]:
        """Return the tokens of each text that ``request`` wants to be embedded.

        :raises ContextOverflowError: one of them is longer than the context, and not just counted.
        :raises InvalidRequestError: there are none, one is empty, or has an unknown token.
        """
        if not inputs:
            raise InvalidRequestError("there is nothing to embed", param="input")
        for index, one in enumerate(inputs):
            self._check_size(request, f"input {index}", one, "input")
        encoded = [self._tokens(one) for one in inputs]
        for index, tokens in enumerate(encoded):
            self._check_ids("input", tokens)
            if not tokens:
                raise InvalidRequestError(f"input {index} is empty", param="input")
            if len(tokens) > self._limits.context_length and request.max_tokens != 0:
                raise ContextOverflowError(
                    f"input {index} has {len(tokens)} tokens and the {MAXIMUM} is "
                    f"{self._limits.context_length} tokens",
                    param="input",
                    figures=self._figures(len(tokens)),
                )
        return encoded

    def _check_size(
        self, request: GenerationRequest, what: str, prompt: Prompt, param: str = ""
    ) -> None:
        """Refuse what cannot fit before a template or a tokenizer sees it.

        :raises ContextOverflowError: its texts are longer than a context of the longest tokens.
        """
        most_bytes = self._most_bytes
        if request.max_tokens == 0:
            most_bytes = max(most_bytes, MOST_COUNTED_BYTES)
        size_bytes = sum(len(text.encode(errors="replace")) for text in _texts(prompt))
        if size_bytes > most_bytes:
            estimate = size_bytes // TYPICAL_TOKEN_BYTES
            raise ContextOverflowError(
                f"{what} is too long: {estimate} tokens (estimated from {size_bytes} bytes), and "
                f"the {MAXIMUM} is {self._limits.context_length} tokens",
                param=param or _param(prompt),
                figures=self._figures(estimate),
            )

    def _figures(self, tokens: int) -> dict[str, int]:
        return {"tokens": tokens, "limit": self._limits.context_length}

    def _chat_tokens(self, prompt: ChatPrompt, request: GenerationRequest) -> list[int]:
        if isinstance(self._chat, str):
            raise InvalidRequestError(self._chat, param="messages")
        return self._chat.encode(_presented(prompt, request))

    def _tokens(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, TextPrompt):
            return self._tokenizer.encode(
                prompt.text, add_special=not prompt.is_rendered, parse_special=prompt.is_rendered
            )
        if isinstance(prompt, TokenPrompt):
            return list(prompt.tokens)
        raise InvalidRequestError("this model continues text; it embeds none", param="model")

    def _check_ids(self, param: str, ids: Collection[int]) -> None:
        size = len(self._tokenizer.token_bytes)
        for token in (min(ids), max(ids)) if ids else ():
            if not 0 <= token < size:
                raise InvalidRequestError(
                    f"token {token} is not in the vocabulary of {size} tokens", param=param
                )


def _presented(prompt: ChatPrompt, request: GenerationRequest) -> ChatPrompt:
    """Return ``prompt`` with the tools that the template presents."""
    presented = tuple(tool for tool in offered_tools(request) if not tool.hidden)
    return evolve(prompt, tools=presented) if len(presented) < len(prompt.tools) else prompt


def _param(prompt: Prompt) -> str:
    return "messages" if isinstance(prompt, ChatPrompt) else "prompt"


def _texts(prompt: Prompt) -> Iterable[str]:
    """Yield the texts of a prompt that somebody wrote."""
    if isinstance(prompt, TextPrompt):
        yield prompt.text
    if isinstance(prompt, ChatPrompt):
        for message in prompt.messages:
            yield from (part.text for part in message.parts)
            yield from (call.arguments for call in message.tool_calls)
            yield message.reasoning or ""


def _chat(tokenizer: Tokenizer, source: str | None, chat_format: Format) -> ChatEncoder | str:
    """Return what encodes conversations, or why the model cannot chat."""
    if not source:
        return "this model has no chat template; ask it for a plain completion instead"
    try:
        template = ChatTemplate(source, tokenizer.template_texts)
    except InvalidRequestError as error:
        return error.message
    return ChatEncoder(tokenizer, template, chat_format)
