"""Programs of others that are tried against LMX: where they are, and whether they may run here."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest

FOLDER = Path(".venv-clients", "node_modules", ".bin")


def client_program(name: str) -> str:
    """Return the path of a program that `make test` installed by npm.

    Skips the test where it is not installed, and where it could reach anybody but this machine: see
    ``scripts/loopback_only.py``.
    """
    others = psutil.net_if_addrs().keys() - {"lo"}
    if others:
        pytest.skip(f"{name} runs without a network only, and here is {', '.join(sorted(others))}")
    found = shutil.which(name, path=str(FOLDER.absolute()))
    if found is None:
        pytest.skip(f"{name} is not installed: `make test` brings it where npm reaches it")
    return found
