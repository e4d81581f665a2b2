"""The plugin's section of the config file."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen(kw_only=True)
class OpenAISettings:
    """``[openai_api]``.

    :param heartbeat_s: how long a stream may stay silent before a comment is sent. Clients and
        proxies give up on silent connections; 15 s is the shortest patience seen.
    :param bare_paths: answer the paths without ``/v1`` too, such as ``/chat/completions``.
    :param list_by_jit: where requests do not load models (``models.jit`` is off), ``/v1/models``
        lists only those that are loaded.
    """

    heartbeat_s: float = field(default=10.0, validator=validators.gt(0))
    bare_paths: bool = False
    list_by_jit: bool = False
