"""The port that the server listens on."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import msgspec
import psutil
from attrs import frozen

from lmx_kernel.errors import LmxError

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
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        here = connection.laddr
        if connection.status == psutil.CONN_LISTEN and here and here.port == port:
            return connection.pid
    return None


async def greeting_at(host: str, port: int) -> Greeting | None:
    """Return what the server there says of itself within a second; None if that is no greeting."""
    try:
        async with asyncio.timeout(GREETING_S):
            answer = await _get_root(host, port)
        return msgspec.json.decode(answer, type=Greeting)
    except (OSError, ValueError):  # a timeout is one of these, so is whatever is no JSON
        return None


async def _get_root(host: str, port: int) -> bytes:
    """Return the body of a successful answer, or b""."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = b""
        while len(answer) < MAX_GREETING_BYTES and (piece := await reader.read(MAX_GREETING_BYTES)):
            answer += piece
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return body if head.split(b" ", 2)[1:2] == [b"200"] else b""


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
