"""How much the model reasons before it answers."""

from __future__ import annotations

from typing import Any

from lmx_anthropic_api.schema import CountBody
from lmx_kernel.dialect.fields import INT32_MAX
from lmx_kernel.errors import InvalidRequestError

# Templates know no effort above the second.
_EFFORTS = {"max": "xhigh"}


def template_options(body: CountBody) -> dict[str, Any]:
    """Return the variables of the chat template. Where a body says nothing of reasoning, the
    template decides.
    """
    options: dict[str, Any] = {}
    if body.thinking is not None:
        options["enable_thinking"] = body.thinking.type != "disabled"
    effort = body.output_config.effort if body.output_config else None
    if effort is not None:
        options["reasoning_effort"] = _EFFORTS.get(effort, effort)
    return options


def reasoning_tokens(body: CountBody) -> int | None:
    """Return the most tokens of reasoning; None for no limit.

    :raises InvalidRequestError: reasoning is enabled without a budget.
    """
    if body.thinking is None or body.thinking.type == "adaptive":
        return None
    if body.thinking.type == "disabled":
        return 0
    if body.thinking.budget_tokens is None:
        where = "thinking.budget_tokens"
        raise InvalidRequestError(f"{where}: this field is required", param=where)
    return min(body.thinking.budget_tokens, INT32_MAX)
