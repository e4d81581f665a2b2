"""Runs a coding agent: one turn, without anybody to ask."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest
from attrs import frozen

TURN_S = 120
KEPT = ("PATH", "LANG", "TERM", "TMPDIR")


@frozen
class Turn:
    """How a turn of an agent ended."""

    status: int
    out: str
    err: str


def call(name: str, **arguments: object) -> str:
    """Return a call as the model writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


async def run(command: list[str], folder: Path, **environ: str) -> Turn:
    """Run an agent to its end, in a home of its own and without our environment."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={name: os.environ[name] for name in KEPT if name in os.environ}
        | {"HOME": str(home), **environ},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TURN_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        pytest.fail(f"no end within {TURN_S} s: {out.decode()}\n{err.decode()}")
    assert process.returncode is not None
    return Turn(process.returncode, out.decode(), err.decode())
