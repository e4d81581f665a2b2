"""The section ``[hub]`` of the config."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen, validators

from lmx_kernel.config import find_home, models_folder


@frozen
class HubSettings:
    """Where models come from, and where they go to.

    :param folder: gets ``publisher/name/files``; by default ``models`` in LMX's own folder.
    :param endpoint: the hub's address; empty is ``HF_ENDPOINT``, or the hub that everyone uses.
    :param token: for gated and private models; empty is ``HF_TOKEN``, or who is logged in.
    :param parallel: downloads that run at once; more wait in line.
    :param reserve_bytes: what must stay free on the disk.
    :param stall_timeout_s: a connection on which nothing comes for this long is given up.
    :param wait_s: a download for which nothing comes, since the network or the hub is away, fails
        after waiting for this long.
    """

    folder: Path = field(factory=lambda: models_folder(find_home()))
    endpoint: str = ""
    token: str = field(default="", repr=False)
    parallel: int = field(default=2, validator=validators.ge(1))
    reserve_bytes: int = field(default=1 << 30, validator=validators.ge(0))
    stall_timeout_s: float = field(default=30.0, validator=validators.gt(0))
    wait_s: float = field(default=86400.0, validator=validators.ge(0))
