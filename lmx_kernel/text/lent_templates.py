"""Chat templates that plugins bring for models whose files have none."""

from __future__ import annotations

import traceback

from lmx_kernel.hookspecs import TEMPLATE_GROUP
from lmx_kernel.plugins.entry_points import entry_points


def lent_template(architecture: str) -> str:
    """Return the template that a plugin brings for models of an architecture; "" for none.

    Of several, that of the first package by name is taken.
    """
    entries = entry_points(TEMPLATE_GROUP, architecture)
    for entry in sorted(entries, key=lambda entry: entry.dist.name if entry.dist else ""):
        try:
            return str(entry.load())
        except (Exception, SystemExit):  # noqa: BLE001 - a broken plugin must not cost the model
            traceback.print_exc()
    return ""
