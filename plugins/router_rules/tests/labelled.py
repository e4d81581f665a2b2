"""Prompts with the task that a person would give them.

``known`` was looked at while the classifier was written; ``apart`` was set apart before, and only
counted at the end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import frozen

from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    EmbeddingPrompt,
    GenerationRequest,
    Message,
    TextPart,
    TextPrompt,
    Tool,
)

FOLDER = Path(__file__).parent / "prompts"
FILLER = "The minutes of the harbour board were read, amended in two places and approved. "


@frozen
class ImagePart:
    """Stands for any part that is not text."""

    data: bytes = b""


def load(name: str) -> list[tuple[str, GenerationRequest]]:
    """Return the tasks and requests of one of the two files."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["task"], _request(row)) for row in map(json.loads, lines)]


def _request(row: dict[str, Any]) -> GenerationRequest:
    text = row["text"]
    if row.get("embed"):
        return GenerationRequest(model="auto", prompt=EmbeddingPrompt((TextPrompt(text),)))
    if "filler" in row:  # so many tokens, as LMX estimates them
        text = FILLER * (row["filler"] * 4 // len(FILLER) + 1) + "\n\n" + text
    images = [ImagePart()] * row.get("images", 0)
    turns = [Message("user", (TextPart(text), *images))]  # type: ignore[arg-type]
    for role, said in zip(("assistant", "user"), reversed(row.get("history", ())), strict=False):
        turns.insert(0, Message(role, (TextPart(said),)))
    if "system" in row:
        turns.insert(0, Message("system", (TextPart(row["system"]),)))
    tools = tuple(Tool(name=name) for name in row.get("tools", ()))
    constraint = Constraint(row["constraint"]) if "constraint" in row else None
    prompt = ChatPrompt(tuple(turns), tools)
    return GenerationRequest(model="auto", prompt=prompt, constraint=constraint)
