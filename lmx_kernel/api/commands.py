"""For commands: the running daemon, and the terminal. Imports cyclopts and rich."""

from lmx_kernel.cli.client import (
    Client,
)
from lmx_kernel.cli.progress import (
    LOOK_S,
    follow_job,
    leaving,
    progress_bar,
)
from lmx_kernel.cli.terminal import (
    AsJson,
    ConfigPath,
    Flag,
    PlainConsole,
    command,
    console,
    format_seconds,
    given,
    print_error,
    print_json,
)
from lmx_kernel.config import (
    find_home,
    models_folder,
)
from lmx_kernel.memory.sizes import (
    format_bytes,
)

__all__ = [
    "LOOK_S",
    "AsJson",
    "Client",
    "ConfigPath",
    "Flag",
    "PlainConsole",
    "command",
    "console",
    "find_home",
    "follow_job",
    "format_bytes",
    "format_seconds",
    "given",
    "leaving",
    "models_folder",
    "print_error",
    "print_json",
    "progress_bar",
]
