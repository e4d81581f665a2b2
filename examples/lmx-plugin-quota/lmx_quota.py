"""Limits how many tokens each API key may use in a day."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from attrs import define, field, frozen, validators

from lmx_kernel.api import (
    LIVE,
    Context,
    ForbiddenError,
    GenerationRequest,
    KernelEvent,
    RequestFinished,
    SettingsSection,
    hookimpl,
)

FILE = "quota.json"


@frozen(kw_only=True)
class QuotaSettings:
    """Section ``[quota]``.

    :ivar tokens_per_day: of prompts and answers together, for each key; 0 for no limit.
    """

    tokens_per_day: int = field(default=1_000_000, validator=validators.ge(0), metadata=LIVE)


@define
class Book:
    """The tokens that each key has used since midnight UTC, kept in a file."""

    path: Path
    day: str = ""
    used: Counter[str] = field(factory=Counter)

    def read(self) -> Book:
        """Read the file, if it is there."""
        if self.path.exists():
            self.day, used = json.loads(self.path.read_text())
            self.used = Counter(used)
        return self

    def of(self, key: str) -> int:
        """Return what a key has used today."""
        return self.used[key] if self.day == _today() else 0

    def add(self, key: str, tokens: int) -> None:
        """Count tokens of a key."""
        if self.day != (today := _today()):
            self.day, self.used = today, Counter()
        self.used[key] += tokens
        self.path.write_text(json.dumps([self.day, self.used]))


_books: dict[Path, Book] = {}


def _book(context: Context) -> Book:
    path = context.home / FILE
    if path not in _books:
        _books[path] = Book(path).read()
    return _books[path]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@hookimpl
def lmx_settings() -> Iterable[SettingsSection]:
    """The section ``[quota]``."""
    return [SettingsSection("quota", QuotaSettings)]


@hookimpl
def lmx_transform(request: GenerationRequest, context: Context) -> None:
    """Refuse a key that has used its tokens; counting those of a prompt is free."""
    limit = context.settings.get(QuotaSettings).tokens_per_day
    if limit and request.key and request.max_tokens != 0:
        used = _book(context).of(request.key)
        if used >= limit:
            context.metrics.counter("refused", "Requests over the quota.", ["key"]).add(
                key=request.key
            )
            raise ForbiddenError(f"{request.key} has used {used} of its {limit} tokens of today")


@hookimpl
def lmx_event(event: KernelEvent, context: Context) -> None:
    """Count the tokens of a request that has ended."""
    if isinstance(event, RequestFinished) and event.key:
        tokens = event.usage.prompt_tokens + event.usage.completion_tokens
        _book(context).add(event.key, tokens)
        context.metrics.counter("tokens", "Tokens of prompts and answers.", ["key"]).add(
            tokens, key=event.key
        )


@hookimpl
def lmx_close(context: Context) -> None:
    """Forget what was read; the next start reads the file."""
    _books.pop(context.home / FILE, None)
