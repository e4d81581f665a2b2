"""The config section of stored answers."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen, validators

from lmx_kernel.config import LIVE

DAY_S = 86400.0
FILE = Path("state", "answers.db")  # in LMX's own folder


@frozen(kw_only=True)
class StoredAnswerSettings:
    """Section ``[stored_answers]``: how many answers are kept. The oldest complete ones beyond any
    of these limits are forgotten; those that are still computed never are.

    :ivar max_count: answers.
    :ivar max_bytes: of their events, and of what the surfaces keep with them.
    :ivar max_age_s: since their end.
    """

    max_count: int = field(default=10_000, validator=validators.ge(1), metadata=LIVE)
    max_bytes: int = field(default=2**30, validator=validators.ge(1), metadata=LIVE)
    max_age_s: float = field(default=30 * DAY_S, validator=validators.gt(0), metadata=LIVE)
