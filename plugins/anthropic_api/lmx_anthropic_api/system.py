"""The system prompt.

Claude Code puts a line for the accounting of Anthropic's own servers before it. Part of the line is
made from the conversation's first message, so it differs between sessions, in sub-agents and after
a compaction, and no cached prompt would begin with it: it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import dropwhile

from lmx_anthropic_api.blocks import paragraphs, required
from lmx_anthropic_api.schema import TextItem
from lmx_kernel.errors import UnsupportedFieldError
from lmx_kernel.types import Message

_BILLING = re.compile(r"x-anthropic-billing-header:")


def system_message(given: str | list[TextItem] | None) -> Message | None:
    """Return the system prompt; None if there is none.

    :raises InvalidRequestError: naming the block that is no text.
    """
    texts = [given] if isinstance(given, str) else list(_texts(given or []))
    parts = paragraphs(texts)
    return Message("system", parts) if parts else None


def _texts(blocks: list[TextItem]) -> Iterator[str]:
    texts = []
    for index, block in enumerate(blocks):
        where = f"system[{index}]"
        if block.type != "text":
            raise UnsupportedFieldError(
                f"{where}.type: only text is supported", param=f"{where}.type"
            )
        texts.append(required(f"{where}.text", block.text))
    return dropwhile(_BILLING.match, texts)
