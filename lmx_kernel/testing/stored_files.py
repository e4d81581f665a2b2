"""The files of states on disk in tests of a kernel: what there is, and what may happen to it."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from lmx_kernel.prefixes import folder
from lmx_kernel.testing.harness import RunningKernel


def stored(home: Path) -> list[folder.StoredEntry]:
    """Return the states that are stored below ``home``, of all models."""
    folders = folder.model_folders(home / folder.FOLDER)
    return [entry for one in folders for entry in folder.entries_of(one)]


def damage(dice: random.Random, path: Path) -> None:
    """Remove a file, cut it, change a bit of it, or put a link in its place."""
    data = bytearray(path.read_bytes())
    kind = dice.randrange(5)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        os.truncate(path, dice.randrange(len(data)))
    elif kind == 2:
        path.unlink()
        path.symlink_to("/etc/hostname")
    else:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)


async def unload(stage: RunningKernel) -> None:
    """Unload the model "m"."""
    await stage.kernel.unload("m")


async def kill(stage: RunningKernel) -> None:
    """Kill its worker."""
    pid = stage.kernel.status().models[0].pid
    assert pid
    os.kill(pid, signal.SIGKILL)


async def trim(stage: RunningKernel) -> None:
    """Let its worker forget what it keeps in memory."""
    stage.instance("m").trim()


LOSSES = [unload, kill, trim]
"""After each of them only the disk has what was computed before."""
