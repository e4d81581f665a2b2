"""Tools explained to a model in plain words, where its chat template does not write them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from attrs import evolve

from lmx_kernel.types import Message, TextPart, Tool

INTRODUCTION = """\
You can call functions. Here they are, one JSON object in each line:
{tools}

To call one, answer with its name and its arguments, in this form and without any other words:
{example}
You may write several of these blocks one after the other. What a function returns is given to you
afterwards. If no function is of use, answer in plain words."""


def introduce(messages: Sequence[Message], tools: Sequence[Tool], example: str) -> list[Message]:
    """Return ``messages`` whose first, the system message, explains ``tools``.

    :param example: a call as the model should write it.
    """
    if not tools:
        return list(messages)
    introduction = INTRODUCTION.format(tools="\n".join(map(_describe, tools)), example=example)
    if messages and messages[0].role == "system":
        parts = (*messages[0].parts, TextPart(f"\n\n{introduction}"))
        return [evolve(messages[0], parts=parts), *messages[1:]]
    return [Message("system", (TextPart(introduction),)), *messages]


def _describe(tool: Tool) -> str:
    return json.dumps(
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        ensure_ascii=False,
    )
