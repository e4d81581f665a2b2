"""Commands that ask the running daemon. None of them needs more than its URL and a key."""

from __future__ import annotations

from lmx_admin_api.commands.bench import bench
from lmx_admin_api.commands.logs import logs
from lmx_admin_api.commands.models import estimate, load, rm, show, unload
from lmx_admin_api.commands.status import status
from lmx_kernel.cli.terminal import command

APPS = [command(one) for one in (bench, estimate, load, logs, rm, show, status, unload)]
