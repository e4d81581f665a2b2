"""``lmx cache``."""

from __future__ import annotations

from urllib.parse import quote

from cyclopts import App
from rich.table import Table

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, ConfigPath, console, print_json
from lmx_kernel.memory.sizes import format_bytes

app = App(name="cache", help="Show or delete what is kept on disk of computed prompts.")


@app.default
def show(*, json: AsJson = False, config: ConfigPath = None) -> None:
    """Show what is kept for each model."""
    found = Client.find(config).get("/admin/cache")
    if json:
        print_json(found)
        return
    table = Table("model", "size", "entries", "hits", "tokens saved", box=None)
    for model in found["models"]:
        figures = model["figures"]
        table.add_row(
            model["model"],
            format_bytes(model["size_bytes"]),
            str(model["entries"]),
            f"{figures['hits_disk']:.0f}" if figures else "-",
            f"{figures['tokens_disk']:.0f}" if figures else "-",
        )
    console.print(table if table.row_count else "Nothing is kept.")


@app.command
def clear(model: str | None = None, *, json: AsJson = False, config: ConfigPath = None) -> None:
    """Delete what is kept for a model, or for all.

    Parameters
    ----------
    model
        Its id; all if left out.
    """
    path = f"/admin/cache/{quote(model, safe='/')}" if model else "/admin/cache"
    cleared = Client.find(config).delete(path)
    if json:
        print_json(cleared)
    else:
        console.print(f"{format_bytes(cleared['freed_bytes'])} deleted.")
