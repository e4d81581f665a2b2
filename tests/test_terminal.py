"""What files and models are called reaches a terminal as text, never as markup or control."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from lmx_kernel.cli.terminal import PlainConsole

HOSTILE = ["x[/bold]", "[red]x", "a\x1b]0;owned\x07b", "a\x9bb", "a\x00b", "[link=x]y"]


def shown(*things):
    file = io.StringIO()
    PlainConsole(file=file, force_terminal=True, width=200, color_system=None).print(*things)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_is_shown_as_it_is(text):
    found = shown(text)
    assert "\x1b" not in found
    assert all(sign not in found for sign in "\x00\x07\x9b")
    assert "[" not in text or "[" in found


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_is_shown_as_it_is(text):
    table = Table("model", box=None, header_style="")
    table.add_row(text)
    found = shown(table)
    assert "\x1b" not in found
    assert all(sign not in found for sign in "\x00\x07\x9b")
    assert "[" not in text or text.partition("\x1b")[0] in found
