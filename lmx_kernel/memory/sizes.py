"""Sizes in bytes, as text for people."""

from __future__ import annotations

MIB, GIB = 1024**2, 1024**3


def format_bytes(size_bytes: float) -> str:
    """Return a size such as ``1.50 GiB`` or ``12 MiB``."""
    return f"{size_bytes / GIB:.2f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.0f} MiB"
