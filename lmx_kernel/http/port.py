"""The port that the server listens on."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

import msgspec
import psutil
from attrs import frozen

from lmx_kernel.errors import LmxError
from lmx_kernel.plugins.timeouts import call_all

BACKLOG = 2048
GREETING_S = 1.0
MAX_GREETING_BYTES = 16 * 1024


class ListenError(LmxError):
    """The address cannot be listened on."""

    code = "cannot_listen"


class AddressNotReadyError(ListenError):
    """The address is not up, or its name does not resolve; both may be otherwise soon."""

    code = "address_not_ready"


class PortInUseError(ListenError):
    """Another process listens there.

    :ivar host: the address that was asked for.
    :ivar port: the port that was asked for.
    :ivar pid: the process that holds it, None if that cannot be seen.
    """

    code = "port_in_use"

    def __init__(self, host: str, port: int, pid: int | None) -> None:
        super().__init__(f"Port {port} is in use by {_describe(pid)}.")
        self.host = host
        self.port = port
        self.pid = pid


@frozen
class Greeting:
    """What a server says of itself at ``/``."""

    name: str
    version: str


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host``, at ``port`` or at a free one if that is 0.

    :raises PortInUseError: someone else listens there.
    :raises AddressNotReadyError: no such address now.
    :raises ListenError: not allowed, or no name that could ever be one.
    """
    try:
        family, address = _resolve(host, port)
        # Named, since asyncio sets TCP_NODELAY only where the protocol is TCP by its number.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except UnicodeError as exc:
        raise ListenError(f"Cannot listen on {host}: this is no host name.") from exc
    except OSError as exc:
        raise AddressNotReadyError(f"Cannot listen on {host}: {exc.strerror}.") from exc
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        # With SO_REUSEADDR two processes may bind; only listening makes the port ours.
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port, find_listener(port)) from exc
        kind = ListenError if isinstance(exc, PermissionError) else AddressNotReadyError
        raise kind(f"Cannot listen on {host} port {port}: {exc.strerror}.") from exc
    sock.setblocking(False)
    return sock


def find_listener(port: int) -> int | None:
    """Return the id of the process that listens on ``port``, None if that cannot be seen."""
    for connection, pid in _connections():
        here = connection.laddr
        if connection.status == psutil.CONN_LISTEN and here and here.port == port:
            return pid
    return None


def _connections() -> Iterator[tuple[Any, int | None]]:
    """Yield the connections that can be seen, with the id of their process."""
    try:
        for connection in psutil.net_connections("tcp"):
            yield connection, connection.pid
    except (psutil.Error, OSError):  # macOS tells all of them to root only
        yield from _own_connections()


def _own_connections() -> Iterator[tuple[Any, int]]:
    with suppress(psutil.Error, OSError):
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                for connection in process.net_connections("tcp"):
                    yield connection, process.pid


def greeting_at(host: str, port: int) -> Greeting | None:
    """Return what the server there says of itself within a second; None if that is no greeting."""
    # A timeout of sockets would not end a server that sends a byte now and then.
    [answer] = call_all({"get": partial(_get_root, host, port)}, GREETING_S).values()
    return answer if isinstance(answer, Greeting) else None


def _get_root(host: str, port: int) -> Greeting | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is only asked what it says it is
    context.verify_mode = ssl.CERT_NONE
    plain = HTTPConnection(host, port, timeout=GREETING_S)
    tls = HTTPSConnection(host, port, timeout=GREETING_S, context=context)
    return _greeting_on(plain) or _greeting_on(tls)


def _greeting_on(connection: HTTPConnection) -> Greeting | None:
    try:
        connection.request("GET", "/", headers={"host": "localhost"})
        response = connection.getresponse()
        if response.status != 200:
            return None
        return msgspec.json.decode(response.read(MAX_GREETING_BYTES), type=Greeting)
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = [(family, address) for family, _, _, _, address in found]
    return min(addresses, key=lambda entry: entry[0] != socket.AF_INET)


def _describe(pid: int | None) -> str:
    if pid is None:
        return "another process"
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"
