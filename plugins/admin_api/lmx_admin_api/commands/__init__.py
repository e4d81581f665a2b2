"""Commands that ask the running daemon. None of them needs more than its URL and a key."""

from __future__ import annotations

from lmx_admin_api.commands.bench import bench
from lmx_admin_api.commands.cache import app as cache
from lmx_admin_api.commands.logs import logs
from lmx_admin_api.commands.models import estimate, load, rm, show, unload
from lmx_admin_api.commands.status import status
from lmx_kernel.cli.terminal import command

APPS = [cache, *map(command, (bench, estimate, load, logs, rm, show, status, unload))]
