"""The addresses that the server listens on, as the config has them."""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

MAX_PORT = 65535
_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})")


@frozen
class ListenAddress:
    """An address and a port.

    :ivar host: an IP address, without brackets, or a name.
    :ivar port: TCP port; 0 stands for a free one (tests).
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Read ``127.0.0.1:1234``, ``name:1234`` or ``[::1]:1234``.

        :raises ValueError: this is no address with a port.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ValueError(
                f"expected an address and a port, such as 127.0.0.1:1234 or [::1]:1234, "
                f"found {text!r}"
            )
        port = int(found["port"])
        if port > MAX_PORT:
            raise ValueError(f"ports end at {MAX_PORT}: {text!r}")
        if found["v6"] is not None:
            ipaddress.IPv6Address(found["v6"])  # says itself what is wrong
        return cls(found["v6"] or found["host"], port)

    def __str__(self) -> str:
        """Return it as the config has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
