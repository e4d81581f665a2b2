"""A kind of job: counts to a number, and goes on where it was stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from lmx_kernel.api import JobKind, Kernel, Report, hookimpl

PAUSE_S = 0.01


@frozen
class KeptSpec:
    """What one job does."""

    to: int


@frozen
class Kept:
    """Keeps how far it is in a file, so that a restart of the daemon goes on from there."""

    folder: Path
    name: str = "kept"
    unit: str = "numbers"
    spec: type[Any] = KeptSpec
    parallel: int = 2

    def key(self, spec: KeptSpec) -> str:
        """Return what is equal for jobs that do the same: a second call joins the first."""
        return str(spec.to)

    async def run(self, spec: KeptSpec, report: Report) -> Mapping[str, Any]:
        """Do the work; cancelled when the job is paused or cancelled, or the daemon stops."""
        for number in range(self._done(spec) + 1, spec.to + 1):
            await asyncio.sleep(PAUSE_S)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file(spec).write_text(str(number))
            report(number, spec.to, f"counted {number}")
        await self.discard(spec)
        report(spec.to, spec.to)
        return {"counted": spec.to}

    async def discard(self, spec: KeptSpec) -> None:
        """Remove what an unfinished job left."""
        self._file(spec).unlink(missing_ok=True)
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _file(self, spec: KeptSpec) -> Path:
        return self.folder / self.key(spec)

    def _done(self, spec: KeptSpec) -> int:
        try:
            return int(self._file(spec).read_text())
        except (OSError, ValueError):
            return 0


@hookimpl
def lmx_job_kinds(kernel: Kernel) -> Iterable[JobKind]:
    """Called once."""
    return [Kept(kernel.home / "kept")]
