"""The section ``[server]`` of the config file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen, validators

from lmx_kernel.access.loopback import is_loopback
from lmx_kernel.http.address import ListenAddress

KIB = 1024
MIB = 1024 * KIB


def _absolute(_section: object, _attribute: Any, value: Path | None) -> None:
    """Refuse a path that means another file in each folder that a command is called in."""
    if value is not None and not value.is_absolute():
        raise ValueError(f"expected a path that begins with / or ~, found {str(value)!r}")


def _addresses(_section: object, _attribute: Any, value: tuple[str, ...]) -> None:
    """Refuse what is no address with a port, and an address that is there twice."""
    addresses = list(map(ListenAddress.parse, value))
    for address in addresses:
        if address.port and addresses.count(address) > 1:
            raise ValueError(f"{address} is there twice")


@frozen(kw_only=True)
class ServerSettings:
    """Where the server listens, and what it takes from a client.

    All deadlines are absolute: dripping bytes does not extend them.

    :ivar host: address or name to listen on; ``::`` takes IPv4 as well.
    :ivar port: TCP port; 0 picks a free one (tests).
    :ivar listen: addresses with ports, such as ``127.0.0.1:1234`` and ``[::1]:1234``, all of which
        the server listens on instead of ``host`` and ``port``. Commands use the first.
    :ivar api_key: the key that clients must show; empty asks for none.
    :ivar tls_cert: PEM file with the certificate, followed by those that signed it; the server
        speaks https then. None is http.
    :ivar tls_key: PEM file with the certificate's key; None if ``tls_cert`` has it.
    :ivar allowed_hosts: names under which it may be asked, besides those of this machine itself; on
        an address that others can reach, none means any.
    :ivar allowed_origins: web pages that may ask, such as ``https://chat.lan``; ``*`` for all. Its
        own pages always may.
    :ivar share_prefixes: what was computed for the prompt of one key serves those of all keys, who
        can tell from the time and the figures of their answers what the others have sent.
    :ivar max_body_bytes: longest body of one request, and longest message of a websocket.
    :ivar max_bodies_bytes: most bytes held for bodies and messages of all requests that are not
        answered yet; an eighth of it for bodies that come without a declared length.
    :ivar max_header_bytes: longest request line and headers of one request.
    :ivar header_timeout_s: from connecting (later: from the first byte) to the end of the headers;
        with TLS, a handshake may take as long before. A websocket that is to show its key in a
        message has as long for it.
    :ivar body_timeout_s: from the end of the headers to the end of the body; from the begin of a
        websocket's message to its end.
    :ivar keep_alive_s: how long an idle connection stays open between requests, or a websocket
        whose client answers no pings.
    :ivar max_connections: more connections than this are answered 503; fewer if the process may
        open fewer files.
    :ivar write_timeout_s: a reader that takes nothing for this long is cut off.
    :ivar drain_s: how long running answers may go on after the order to stop.
    """

    host: str = "127.0.0.1"
    port: int = field(default=1234, validator=[validators.ge(0), validators.le(65535)])
    listen: tuple[str, ...] = field(default=(), validator=_addresses)
    api_key: str = field(default="", repr=False)
    tls_cert: Path | None = field(default=None, validator=_absolute)
    tls_key: Path | None = field(default=None, validator=_absolute)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    share_prefixes: bool = False
    max_body_bytes: int = field(default=16 * MIB, validator=validators.gt(0))
    max_bodies_bytes: int = field(default=256 * MIB, validator=validators.gt(0))
    max_header_bytes: int = field(default=64 * KIB, validator=validators.ge(KIB))
    header_timeout_s: float = field(default=10.0, validator=validators.gt(0))
    body_timeout_s: float = field(default=30.0, validator=validators.gt(0))
    keep_alive_s: float = field(default=75.0, validator=validators.gt(0))
    max_connections: int = field(default=2048, validator=validators.gt(0))
    write_timeout_s: float = field(default=60.0, validator=validators.gt(0))
    drain_s: float = field(default=30.0, validator=validators.ge(0))

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """All that the server listens on; at least one."""
        if self.listen:
            return tuple(map(ListenAddress.parse, self.listen))
        return (ListenAddress(self.host, self.port),)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server, at any of its addresses."""
        return all(is_loopback(address.host) for address in self.addresses)

    @property
    def scheme(self) -> str:
        """What the server's URL begins with."""
        return "https" if self.tls_cert else "http"
