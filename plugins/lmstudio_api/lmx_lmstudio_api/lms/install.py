"""``lmx lms install``: a command ``lms`` beside ``lmx``, unless there is another one.

It is no script of the package, since pip would put that there in any case: whoever has LM Studio
on the same machine would find one ``lms`` or the other by the order of their path.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from lmx_kernel.errors import ConflictError
from lmx_lmstudio_api.lms.output import NORMAL, Output

NAME = "lms"
MODULE = "lmx_lmstudio_api.lms"


def own_file() -> Path:
    """Return where our ``lms`` is, or would be."""
    return Path(sysconfig.get_path("scripts")) / NAME


def other_file() -> Path | None:
    """Return another ``lms`` than ours: in the path, or where ours would be."""
    found = shutil.which(NAME)
    for file in (Path(found) if found else None, own_file()):
        if file is not None and file.exists() and not is_ours(file):
            return file
    return None


def is_ours(file: Path) -> bool:
    """Return whether a file is a ``lms`` that :func:`install` wrote."""
    try:
        return MODULE.encode() in file.read_bytes()[:4096]
    except OSError:
        return False


def install(*, output: Output = NORMAL) -> None:
    """Put the command `lms` beside `lmx`, unless there is another one."""
    from lmx_kernel.processes.child import module_command  # noqa: PLC0415 - takes long

    file = own_file()
    if (other := other_file()) is not None:
        raise ConflictError(
            f"there is another lms, {other}: it stays, and `lmx lms` has the same commands"
        )
    file.write_text(f'#!/bin/sh\nexec {shlex.join(module_command(MODULE))} "$@"\n')
    file.chmod(0o755)
    output.say(f"Wrote {file}.")


def uninstall(*, output: Output = NORMAL) -> None:
    """Remove the command `lms` that `lmx lms install` wrote."""
    file = own_file()
    if not is_ours(file):
        output.say("It is not installed.")
        sys.exit(1)
    file.unlink()
    output.say(f"Removed {file}.")
