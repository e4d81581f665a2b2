"""The plugin's section of the config file."""

from __future__ import annotations

from attrs import field, frozen, validators

GREETING_PATH = "/lmstudio-greeting"
"""Where clients find out that this API is served."""


@frozen(kw_only=True)
class LMStudioSettings:
    """``[lmstudio_api]``.

    :param heartbeat_s: how long a stream may stay silent before a comment is sent. Clients and
        proxies give up on silent connections; 15 s is the shortest patience seen.
    """

    heartbeat_s: float = field(default=10.0, validator=validators.gt(0))
