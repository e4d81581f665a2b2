"""Kinds of jobs that stand in for other plugins': a daemon of a test loads this as a plugin.

A download waits while its folder has no file ``go``; what it is called says how it ends.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from attrs import define, field, frozen

from lmx_kernel.errors import ModelNotFoundError
from lmx_kernel.hookspecs import hookimpl


@frozen(kw_only=True)
class FakeSpec:
    """What to fetch."""

    repo: str
    quantization: str | None = None
    files: tuple[str, ...] | None = None


@define
class FakeDownloads:
    """Downloads nothing, and notes what was discarded."""

    name: str = "download"
    unit: str = "bytes"
    spec: type = FakeSpec
    parallel: int = 2
    discarded: list = field(factory=list)

    def key(self, spec):
        return f"{spec.repo}:{spec.quantization}"

    async def run(self, spec, report):
        report(1_000_000, 4_000_000, f"{spec.repo}.gguf")
        if spec.repo == "acme/missing":
            raise ModelNotFoundError(f"the hub has no {spec.repo}")
        while not Path(os.environ["LMX_HOME"], "go").exists():
            await asyncio.sleep(0.01)
        report(4_000_000, 4_000_000)
        return {"bytes": 4_000_000}

    async def discard(self, spec):
        self.discarded.append(spec.repo)


@hookimpl
def lmx_job_kinds():
    return [FakeDownloads()]
