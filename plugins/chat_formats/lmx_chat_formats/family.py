"""What most families of models share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmx_kernel.text.formats.chat_format import ChatFormat

THINK = ("<think>", "</think>")


class FamilyFormat(ChatFormat):
    """A base for the formats of this distribution: reasoning between ``<think>`` and ``</think>``.

    Some families call the option that switches reasoning on ``enable_thinking``, others
    ``thinking``: their templates get it by both names.
    """

    reasoning_marks = (THINK,)

    def template_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``options`` with ``enable_thinking`` as ``thinking`` as well."""
        if "enable_thinking" not in options:
            return options
        return {"thinking": options["enable_thinking"], **options}
