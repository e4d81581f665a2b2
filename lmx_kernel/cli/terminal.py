"""What commands have in common, the kernel's and those of plugins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console

from lmx_kernel.memory.ledger import GIB

ConfigPath = Annotated[
    Path | None, Parameter(name="--config", help="Config file; default: config.toml in LMX_HOME.")
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]

console = Console(highlight=False)


def print_json(value: Any) -> None:
    """Print one line of JSON, for programs."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")
    sys.stdout.flush()


def gib(size_bytes: float) -> str:
    """Return a size for people."""
    return f"{size_bytes / GIB:.2f} GiB"
