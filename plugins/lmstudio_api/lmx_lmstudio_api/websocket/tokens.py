"""``tokenize``, ``countTokens`` and ``applyPromptTemplate``."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import evolve, frozen
from msgspec import Struct

from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import EncodedPrompt, GenerationRequest, Prompt, TextPrompt
from lmx_lmstudio_api.model_info import LLM
from lmx_lmstudio_api.websocket.config import ConfigStack, prediction_config
from lmx_lmstudio_api.websocket.errors import naming_query
from lmx_lmstudio_api.websocket.history import History
from lmx_lmstudio_api.websocket.models import Models, Specifier
from lmx_lmstudio_api.websocket.prediction import chat_prompt
from lmx_lmstudio_api.websocket.tools import ToolValue, make_tools


class TextBody(Struct, rename="camel", frozen=True):
    """The parameter of ``tokenize`` and ``countTokens``."""

    specifier: Specifier
    input_string: str


class TemplateOptions(Struct, rename="camel", frozen=True):
    """How a conversation is shown; the template itself says where it has which marks."""

    tool_definitions: list[ToolValue] | None = None


class TemplateBody(Struct, rename="camel", frozen=True):
    """The parameter of ``applyPromptTemplate``."""

    specifier: Specifier
    history: History
    prediction_config_stack: ConfigStack = ConfigStack()
    opts: TemplateOptions = TemplateOptions()


@frozen
class Tokens:
    """Shows what models of one kind read.

    :param pace: clients ask for each text of a long list by a call of its own, all at once.
    """

    kernel: Kernel
    models: Models
    kind: str
    pace: asyncio.Semaphore

    async def tokenize(self, body: TextBody) -> dict[str, Any]:
        """Return the tokens of a text; the texts of control tokens are read as these."""
        return {"tokens": (await self._encode(body)).tokens}

    async def count(self, body: TextBody) -> dict[str, Any]:
        """Return how many tokens a text has."""
        return {"tokenCount": len((await self._encode(body)).tokens)}

    async def apply_template(self, body: TemplateBody) -> dict[str, Any]:
        """Return a conversation as the model's template writes it."""
        config = prediction_config(body.prediction_config_stack)
        prompt = chat_prompt(body.history, config)
        if body.opts.tool_definitions is not None:
            tools = make_tools("opts.toolDefinitions", body.opts.tool_definitions)
            prompt = evolve(prompt, tools=tools)
        return {"formatted": (await self._ask(body.specifier, LLM, prompt)).text}

    async def _encode(self, body: TextBody) -> EncodedPrompt:
        if not body.input_string:
            return EncodedPrompt("", ())
        prompt = TextPrompt(body.input_string, is_rendered=True)
        return await self._ask(body.specifier, self.kind, prompt)

    async def _ask(self, specifier: Specifier, kind: str, prompt: Prompt) -> EncodedPrompt:
        name = self.models.target(specifier, kind)
        async with self.pace:
            with naming_query(self.kernel, name):
                return await self.kernel.encode(GenerationRequest(model=name, prompt=prompt))
