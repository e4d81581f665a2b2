"""Where the running daemon is, and a token for its owner's own commands."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec
from attrs import field, frozen

from lmx_kernel.config import Settings
from lmx_kernel.config.private_file import write_private
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.http.tls import TlsFileError, pinned_context

FILE = Path("run", "daemon.json")
ANSWER_S = 2.0


@frozen(kw_only=True)
class Running:
    """A daemon that runs.

    :ivar url: its root, as this machine reaches it; of several addresses the first.
    :ivar urls: the same of all its addresses.
    :ivar token: has every scope for as long as this daemon runs.
    :ivar certificate: the file of its certificate, None if it speaks plain HTTP.
    """

    url: str
    pid: int
    token: str = field(repr=False)
    certificate: Path | None = None
    urls: tuple[str, ...] = ()


@frozen
class Address:
    """Where a daemon is asked.

    :ivar url: its root.
    :ivar token: "" for none.
    :ivar certificate: the file of the one certificate that is trusted, None for any that is signed
        by an authority of this machine.
    """

    url: str
    token: str = field(repr=False)
    certificate: Path | None = None

    def open(self, request: urllib.request.Request, timeout_s: float | None) -> Any:
        """Return the response to ``request``, which is never sent to a proxy: the daemon is on this
        machine, or where the user says.

        :raises OSError: as :func:`urllib.request.urlopen`.
        :raises TlsFileError: the certificate cannot be read.
        """
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.certificate is not None:
            context = pinned_context(self.certificate)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        return urllib.request.build_opener(*handlers).open(request, timeout=timeout_s)


def find_daemon(settings: Settings, environ: Mapping[str, str] = os.environ) -> Address:
    """Return where the daemon is that commands talk to.

    ``LMX_URL`` and ``LMX_API_KEY`` name one elsewhere; else it is the one that runs here, or the
    one that the config would start.
    """
    server, running = settings.get(ServerSettings), read(settings.home)
    if url := environ.get("LMX_URL", "").rstrip("/"):  # a token of ours is no business of others
        return Address(url, environ.get("LMX_API_KEY", ""))
    key = environ.get("LMX_API_KEY")
    if running is not None:
        return Address(running.url, key or running.token, running.certificate)
    return Address(local_urls(server)[0], key or server.api_key, server.tls_cert)


def answers(running: Running) -> bool:
    """Return whether the daemon lets its own token in, within seconds. Blocks meanwhile."""
    request = urllib.request.Request(  # noqa: S310 - the URL is of http(s), from the owner's own file
        f"{running.url}/health/status", headers={"authorization": f"Bearer {running.token}"}
    )
    address = Address(running.url, running.token, running.certificate)
    try:
        with address.open(request, ANSWER_S) as response:
            return bool(response.status == HTTPStatus.OK)
    except (OSError, HTTPException, TlsFileError):
        return False


def local_urls(server: ServerSettings) -> tuple[str, ...]:
    """Return where this machine reaches a server, at each of its addresses."""
    return tuple(local_url(server.scheme, one.host, one.port) for one in server.addresses)


def local_url(scheme: str, host: str, port: int) -> str:
    """Return where this machine reaches a server that listens on ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return url_of(scheme, host, port)


def url_of(scheme: str, host: str, port: int) -> str:
    """Return the URL of a server on ``host``, IPv6 addresses in brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def read(home: Path) -> Running | None:
    """Return the daemon that runs with this folder, or None."""
    try:
        running = msgspec.json.decode((home / FILE).read_bytes(), type=Running, dec_hook=_path)
    except (OSError, ValueError):
        return None
    return running if _may_exist(running.pid) else None


def _may_exist(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's; who asks the daemon will find out
        return True
    return True


def _path(_kind: type, text: Any) -> Path:
    return Path(text)


@contextmanager
def published(home: Path, running: Running) -> Iterator[None]:
    """Tell other processes of the same user of a daemon; it serves all the same if that fails."""
    try:
        write_private(home / FILE, msgspec.json.encode(running, enc_hook=str))
    except OSError as error:
        import structlog  # noqa: PLC0415 - commands, which write no log, start faster without it

        structlog.get_logger(__name__).warning("run_file_failed", reason=error.strerror)
    try:
        yield
    finally:
        if read(home) == running:
            with suppress(OSError):
                (home / FILE).unlink()
