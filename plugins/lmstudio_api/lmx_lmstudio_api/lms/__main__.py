"""``python -m lmx_lmstudio_api.lms`` is the ``lms`` command."""

from __future__ import annotations

from lmx_kernel.cli.main import run
from lmx_lmstudio_api.lms.command import app

run(lambda: app)
