"""What a plugin offers as a source of drafts."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol

from lmx_kernel.engine.drafts import DraftSource
from lmx_kernel.engine.protocol import Tokenizer


class DraftKind(Protocol):
    """What an entry point of the group ``lmx.drafts`` names."""

    def __call__(self, prompt: Seq[int], prediction: Seq[int], tokenizer: Tokenizer) -> DraftSource:
        """Return the source of one sequence.

        :param prompt: its prompt, with which the tokens of every call begin.
        :param prediction: what the client expects of the answer; empty where it does not say.
        """
        ...
