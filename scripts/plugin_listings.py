"""Writes the listings of docs/plugins.md from the templates of `lmx plugin new`.

    .venv/bin/python scripts/plugin_listings.py

A comment before each listing says which one it is: `<!-- KIND NAME: FILE -->`.
"""

from __future__ import annotations

import re
from pathlib import Path

from lmx_kernel.plugins.scaffold import render

PAGE = Path(__file__).parent.parent / "docs" / "plugins.md"
LISTING = re.compile(r"(<!-- (\S+) (\S+): (\S+) -->\n```(?:python|toml|yaml)\n).*?```", re.DOTALL)


def with_listings(page: str) -> str:
    """Return a page with its listings as the templates have them now."""
    return LISTING.sub(lambda match: f"{match[1]}{render(match[2], match[3])[match[4]]}```", page)


if __name__ == "__main__":
    PAGE.write_text(with_listings(PAGE.read_text()))
