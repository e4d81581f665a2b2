"""Requests to tokens, with every check that only the model's own vocabulary and limits allow."""

from __future__ import annotations

from collections.abc import Sequence

from lmx_kernel.engine import Tokenizer
from lmx_kernel.errors import ContextOverflowError, InvalidRequestError
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


class PromptEncoder:
    """Turns the requests of one model into tokens. Its calls may come from any one thread."""

    def __init__(self, tokenizer: Tokenizer, limits: EngineLimits) -> None:
        self._tokenizer = tokenizer
        self._limits = limits
        source = tokenizer.chat_template
        self._template = ChatTemplate(source, tokenizer.template_texts) if source else None

    def encode(self, request: GenerationRequest) -> list[int]:
        """Return the prompt's tokens.

        :raises ContextOverflowError: the prompt alone is longer than the context, and not just
            counted.
        :raises InvalidRequestError: no chat template, a token id outside the vocabulary, no prompt.
        """
        tokens = self._tokens(request.prompt)
        self._check_ids("prompt", tokens)
        self._check_ids("logit_bias", request.sampling.logit_bias)
        if not tokens:
            raise InvalidRequestError("the prompt is empty", param="prompt")
        if len(tokens) > self._limits.context_length and request.max_tokens != 0:
            raise ContextOverflowError(
                f"the prompt has {len(tokens)} tokens and the context length is "
                f"{self._limits.context_length} tokens",
                param="messages" if isinstance(request.prompt, ChatPrompt) else "prompt",
            )
        return tokens

    def encode_inputs(
        self, request: GenerationRequest, inputs: Sequence[EmbeddingInput]
    ) -> list[list[int]]:
        """Return the tokens of each text that ``request`` wants to be embedded.

        :raises ContextOverflowError: one of them is longer than the context, and not just counted.
        :raises InvalidRequestError: there are none, one is empty, or has an unknown token.
        """
        if not inputs:
            raise InvalidRequestError("there is nothing to embed", param="input")
        encoded = [self._tokens(one) for one in inputs]
        for index, tokens in enumerate(encoded):
            self._check_ids("input", tokens)
            if not tokens:
                raise InvalidRequestError(f"input {index} is empty", param="input")
            if len(tokens) > self._limits.context_length and request.max_tokens != 0:
                raise ContextOverflowError(
                    f"input {index} has {len(tokens)} tokens and the context length is "
                    f"{self._limits.context_length} tokens",
                    param="input",
                )
        return encoded

    def _tokens(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, ChatPrompt):
            if self._template is None:
                raise InvalidRequestError(
                    "this model has no chat template; ask it for a plain completion instead",
                    param="messages",
                )
            text = self._template.render(prompt.messages)
            return self._tokenizer.encode(text, add_special=False, parse_special=True)
        if isinstance(prompt, TextPrompt):
            return self._tokenizer.encode(prompt.text, add_special=True, parse_special=False)
        if isinstance(prompt, TokenPrompt):
            return list(prompt.tokens)
        raise InvalidRequestError("this model continues text; it embeds none", param="model")

    def _check_ids(self, param: str, ids: object) -> None:
        size = len(self._tokenizer.pieces)
        for token in ids if isinstance(ids, list | dict) else ():
            if not 0 <= token < size:
                raise InvalidRequestError(
                    f"token {token} is not in the vocabulary of {size} tokens", param=param
                )
