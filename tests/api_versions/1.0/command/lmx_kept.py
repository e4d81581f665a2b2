"""The command `lmx kept`: what the models in LMX's own folder take on disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lmx_kernel.api import Context, hookimpl
from lmx_kernel.api.commands import AsJson, command, console, format_bytes, print_json

if TYPE_CHECKING:
    from cyclopts import App


@hookimpl
def lmx_commands(context: Context) -> Iterable[App]:
    """Called in the command's own process. `lmx_kernel.api.commands.Client` talks to the daemon."""

    def kept(as_json: AsJson = False) -> None:
        """Add up the files in LMX's folder of models."""
        files = [path for path in context.settings.models_folder.rglob("*") if path.is_file()]
        total = sum(path.stat().st_size for path in files)
        if as_json:
            print_json({"files": len(files), "bytes": total})
            return
        console.print(f"{len(files)} files take {format_bytes(total)}.")

    return [command(kept, "kept")]
