"""Where the running daemon is, and a token for its owner's own commands."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

import msgspec
import psutil
import structlog
from attrs import field, frozen

from lmx_kernel.config import Settings
from lmx_kernel.config.private_file import write_private
from lmx_kernel.http.settings import ServerSettings

FILE = Path("run", "daemon.json")
ANSWER_S = 2.0
_log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class Running:
    """A daemon that runs.

    :ivar url: its root, as this machine reaches it.
    :ivar token: has every scope for as long as this daemon runs.
    """

    url: str
    pid: int
    token: str = field(repr=False)


def find_daemon(settings: Settings, environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the URL of the daemon that commands talk to, and a token for it ("" for none).

    ``LMX_URL`` and ``LMX_API_KEY`` name one elsewhere; else it is the one that runs here, or the
    one that the config would start.
    """
    server, running = settings.get(ServerSettings), read(settings.home)
    if url := environ.get("LMX_URL", "").rstrip("/"):  # a token of ours is no business of others
        return url, environ.get("LMX_API_KEY", "")
    if running is not None:
        return running.url, environ.get("LMX_API_KEY") or running.token
    return local_url(server.host, server.port), environ.get("LMX_API_KEY") or server.api_key


def answers(running: Running) -> bool:
    """Return whether the daemon lets its own token in, within seconds. Blocks meanwhile."""
    request = urllib.request.Request(  # noqa: S310 - the URL is of http, from the owner's own file
        f"{running.url}/health/status", headers={"authorization": f"Bearer {running.token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_S) as response:
            return bool(response.status == HTTPStatus.OK)
    except (OSError, HTTPException):
        return False


def local_url(host: str, port: int) -> str:
    """Return where this machine reaches a server that listens on ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return url_of(host, port)


def url_of(host: str, port: int) -> str:
    """Return the URL of a server on ``host``, IPv6 addresses in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def read(home: Path) -> Running | None:
    """Return the daemon that runs with this folder, or None."""
    try:
        running = msgspec.json.decode((home / FILE).read_bytes(), type=Running)
    except (OSError, ValueError):
        return None
    return running if _may_exist(running.pid) else None


def _may_exist(pid: int) -> bool:
    try:
        return psutil.pid_exists(pid)
    except (psutil.Error, OSError):  # no /proc, for one; who asks the daemon will find out
        return True


@contextmanager
def published(home: Path, running: Running) -> Iterator[None]:
    """Tell other processes of the same user of a daemon; it serves all the same if that fails."""
    try:
        write_private(home / FILE, msgspec.json.encode(running))
    except OSError as error:
        _log.warning("run_file_failed", reason=error.strerror)
    try:
        yield
    finally:
        if read(home) == running:
            with suppress(OSError):
                (home / FILE).unlink()
