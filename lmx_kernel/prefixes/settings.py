"""The config section of prefixes on disk."""

from __future__ import annotations

from attrs import field, frozen, validators

DAY_S = 86400.0


@frozen(kw_only=True)
class CacheSettings:
    """Section ``[cache]``: what is kept on disk of computed prompts and answers.

    :ivar disk_bytes: of all files together; None is a tenth of the free disk and at most 20 GiB, 0
        keeps nothing and reads nothing.
    :ivar disk_ttl_s: files that were not used for so long are deleted; 0 never does.
    """

    disk_bytes: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    disk_ttl_s: float = field(default=30 * DAY_S, validator=validators.ge(0))
