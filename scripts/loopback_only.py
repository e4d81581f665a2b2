"""Run a command where there is no network but the loopback interface.

    python scripts/loopback_only.py COMMAND [ARGUMENT ...]

Clients that are tried against a server of our own then reach nobody else. Needs Linux and
util-linux's unshare(1), and the right to make a network namespace.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

INSIDE = "--inside"
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h


def main() -> None:
    """Make the namespace, then run the command in it."""
    if sys.argv[1] == INSIDE:
        bring_up("lo")
        os.execvp(sys.argv[2], sys.argv[2:])
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    here = [sys.executable, __file__, INSIDE, *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "--net", *user, *here])


def bring_up(interface: str) -> None:
    """Bring a network interface up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", interface.encode(), 0)
        flags = struct.unpack("16xh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[0]
        request = struct.pack("16sh14x", interface.encode(), flags | IFF_UP)
        fcntl.ioctl(control, SIOCSIFFLAGS, request)


if __name__ == "__main__":
    main()
