"""The catalogue: every model on disk that some backend recognises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from lmx_kernel.errors import ModelNotFoundError, NotFoundError
from lmx_kernel.interfaces import Backend, ModelSource
from lmx_kernel.types import Location, ModelCard, ModelName

MAX_LISTED = 50
MAX_SCAN_SHARE = 0.1  # the share of the time that scans may take, however often one is requested
log = structlog.get_logger(__name__)


class Preferences(Protocol):
    """What the owner of the models wants."""

    def names(self, cards: Mapping[str, ModelCard]) -> Mapping[str, ModelName]:
        """Return further names, in lower case."""
        ...

    def backend_of(self, card: ModelCard) -> str | None:
        """Return the backend of a model that several recognise; None takes the first."""
        ...


class NoPreferences:
    """Nobody wants anything."""

    def names(self, cards: Mapping[str, ModelCard]) -> Mapping[str, ModelName]:
        return {}

    def backend_of(self, card: ModelCard) -> str | None:
        return None


class Catalogue:
    """The models in all sources, as the backends recognise them. Scanned in a thread; reading it
    does not wait for a scan.

    Every scan asks the backends about every location; they remember what is slow to read (see
    :class:`~lmx_kernel.models.headers.HeaderBackend`).

    :param sources: returns the current sources.
    :param backends: returns the current backends.
    :param preferences: of the owner; call :meth:`rearrange` when they have changed.
    """

    def __init__(
        self,
        sources: Callable[[], Sequence[ModelSource]],
        backends: Callable[[], Sequence[Backend]],
        preferences: Preferences | None = None,
    ) -> None:
        self._preferences = preferences or NoPreferences()
        self._sources = sources
        self._backends = backends
        self._cards: dict[str, ModelCard] = {}
        self._found: tuple[tuple[ModelCard, ModelSource], ...] = ()
        self._next_scan_at = 0.0  # monotonic; 0 before the first scan
        self._pending_scan: asyncio.Task[None] | None = None
        self._disk_lock = asyncio.Lock()  # held while models are scanned or deleted

    @property
    def cards(self) -> list[ModelCard]:
        """All models by id, those that cannot be loaded included."""
        return list(self._cards.values())

    @property
    def by_id(self) -> Mapping[str, ModelCard]:
        """All models by id; replaced as a whole when one of them changes."""
        return self._cards

    @property
    def is_scanned(self) -> bool:
        """Whether the first scan is complete."""
        return bool(self._next_scan_at)

    def scan(self) -> None:
        """Scan the disk now. Slow: call it in a thread."""
        begun = time.monotonic()
        self._set_found(
            (card, source)
            for source, location in self._locations()
            for card in self._identify(location)
        )
        ended = time.monotonic()
        self._next_scan_at = ended + (ended - begun) / MAX_SCAN_SHARE

    async def refresh(self) -> None:
        """Scan the disk again; calls before a scan starts share it."""
        if self._pending_scan is None:
            self._pending_scan = asyncio.ensure_future(self._scan_alone())
            self._pending_scan.add_done_callback(self._forget_scan)
        await asyncio.shield(self._pending_scan)

    def find(self, name: str, backend: str | None = None) -> ModelCard:
        """Return the model of this name: its id, in any case; a name that the owner gave to it or
        to one of its profiles; or the id's last part if unique.

        :param backend: chooses one if several recognise the same files; None takes the first.
        :raises ModelNotFoundError: there is none; names the models there are.
        :raises NotFoundError: there is no such backend; names the backends there are.
        """
        cards = self._cards
        if backend is not None:
            self._check_backend(backend)
            cards = _by_id(card for card, _ in self._found if card.backend == backend)
        if card := cards.get(name):
            return card
        wanted = name.casefold()
        matches = [card for key, card in cards.items() if key.casefold() == wanted]
        given = self._preferences.names(self._cards).get(wanted)
        if given is not None and given.card.id in cards:
            matches = matches or [cards[given.card.id]]
        matches = matches or [
            card for key, card in cards.items() if key.casefold().endswith(f"/{wanted}")
        ]
        if len(matches) == 1:
            return matches[0]
        raise ModelNotFoundError(_not_found_text(name, cards, backend), param="model")

    def known_id(self, name: str) -> str:
        """Return the id of the model of this name; "" if there is none."""
        try:
            return self.find(name).id
        except ModelNotFoundError:
            return ""

    async def delete(self, name: str, check: Callable[[ModelCard], None]) -> ModelCard:
        """Delete a model's files.

        :param check: raises if the model is in use; after it returns, :meth:`find` does not find
            the model any more.
        :raises ModelNotFoundError: there is none; names the models there are.
        :raises ForbiddenError: it is in a folder that belongs to another program.
        """
        async with self._disk_lock:  # or a running scan would list the model again
            card = self.find(name)
            check(card)
            source = next(source for found, source in self._found if found == card)
            self._set_found(pair for pair in self._found if pair[0].id != card.id)
            try:
                await asyncio.to_thread(source.delete, card)
            finally:
                await asyncio.to_thread(self.scan)
        return card

    async def find_fresh(self, name: str, backend: str | None = None) -> ModelCard:
        """Like :meth:`find`, but scan the disk again before a model is reported as missing or
        unusable: its file, or the package that it needs, may have been installed since.

        :raises ModelNotFoundError: there is none; names the models there are.
        """
        with suppress(ModelNotFoundError):
            card = self.find(name, backend)
            if not card.problem:
                return card
        await self.refresh()
        return self.find(name, backend)

    def _check_backend(self, name: str) -> None:
        names = sorted(backend.name for backend in self._backends())
        if name not in names:
            raise NotFoundError(
                f'Backend "{name[:200]}" was not found. Backends here: {", ".join(names)}.',
                param="backend",
            )

    def _forget_scan(self, scan: asyncio.Task[None]) -> None:
        """Let the next refresh begin a scan of its own, also if this one was cancelled."""
        if self._pending_scan is scan:
            self._pending_scan = None

    async def _scan_alone(self) -> None:
        await asyncio.sleep(self._next_scan_at - time.monotonic())
        async with self._disk_lock:
            self._pending_scan = None
            await asyncio.to_thread(self.scan)

    def _set_found(self, found: Iterable[tuple[ModelCard, ModelSource]]) -> None:
        self._found = tuple(found)
        self.rearrange()

    def rearrange(self) -> None:
        """Choose anew which of several backends runs a model."""
        cards = [card for card, _ in self._found]
        wanted = {card.id: self._preferences.backend_of(card) for card in cards}
        self._cards = _by_id(sorted(cards, key=lambda card: card.backend != wanted[card.id]))

    def _locations(self) -> Iterable[tuple[ModelSource, Location]]:
        for source in self._sources():
            try:
                yield from ((source, location) for location in source.locations())
            # Sources are code of plugins: they may fail in any way, and the others still count.
            except (Exception, SystemExit):
                log.exception("model_source_failed", source=source.name)

    def _identify(self, location: Location) -> Iterable[ModelCard]:
        for backend in self._backends():
            try:
                yield from backend.identify(location)
            # Backends are code of plugins: they may fail in any way, and the others still count.
            except (Exception, SystemExit):
                log.exception("identify_failed", backend=backend.name, model=location.name)


def _by_id(cards: Iterable[ModelCard]) -> dict[str, ModelCard]:
    """Return the cards by id; the first of an id counts."""
    kept: dict[str, ModelCard] = {}
    for card in cards:
        kept.setdefault(card.id, card)
    return dict(sorted(kept.items()))


def _not_found_text(name: str, known: Iterable[str], backend: str | None) -> str:
    names = sorted(known)
    listed = ", ".join(names[:MAX_LISTED]) or "none"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    which = "Models here" if backend is None else f"Models for {backend}"
    return f'Model "{name[:200]}" was not found. {which}: {listed}{more}.'
