"""Writes every answer to a file in LMX's folder, one line of JSON each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

from attrs import define, field

from lmx_kernel.api import (
    AnswerObserver,
    Context,
    Event,
    GenerationRequest,
    TextDelta,
    Usage,
    hookimpl,
)

FILE = "transcript.jsonl"
_files: dict[Path, IO[str]] = {}


@define
class Transcript(AnswerObserver):
    """One answer that is being written; only its first candidate."""

    file: IO[str]
    answer_id: str
    model: str
    text: list[str] = field(factory=list)

    def see(self, event: Event) -> None:
        """Keep a piece of text."""
        if isinstance(event, TextDelta) and event.candidate == 0:
            self.text.append(event.text)

    def end(self, outcome: str, usage: Usage) -> None:
        """Write the line."""
        line = {
            "id": self.answer_id,
            "model": self.model,
            "outcome": outcome,
            "tokens": usage.completion_tokens,
            "text": "".join(self.text),
        }
        print(json.dumps(line), file=self.file, flush=True)


@hookimpl
def lmx_observe(
    request: GenerationRequest, model: str, answer_id: str, context: Context
) -> AnswerObserver | None:
    """Observe the answer, unless the prompt is only counted."""
    if request.max_tokens == 0:
        return None
    path = context.home / FILE
    if path not in _files:
        _files[path] = open(path, "a", encoding="utf-8", opener=_open_private)  # noqa: SIM115
    return Transcript(_files[path], answer_id, model)


@hookimpl
def lmx_close(context: Context) -> None:
    """Close the file."""
    if file := _files.pop(context.home / FILE, None):
        file.close()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
