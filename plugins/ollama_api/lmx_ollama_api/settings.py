"""The plugin's section of the config file."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen(kw_only=True)
class OllamaSettings:
    """``[ollama_api]``.

    :param heartbeat_s: how long a stream may stay silent before a line without text is sent.
    """

    heartbeat_s: float = field(default=10.0, validator=validators.gt(0))
