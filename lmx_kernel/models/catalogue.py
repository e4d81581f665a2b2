"""The catalogue: every model on disk that some backend recognises."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import structlog

from lmx_kernel.errors import ModelNotFoundError, NotFoundError
from lmx_kernel.interfaces import Backend, ModelSource
from lmx_kernel.types import Location, ModelCard

MAX_LISTED = 50
MAX_SCANNING = 0.1  # the share of the time that scans may take, however often they are requested
log = structlog.get_logger(__name__)

_Cards = tuple[ModelCard, ...]
_Known = tuple[tuple[int, ...], _Cards]


class Catalogue:
    """The models that the sources hold and the backends recognise. Scans run in a thread.

    :param sources: returns the sources there are now.
    :param backends: returns the backends there are now.
    """

    def __init__(
        self,
        sources: Callable[[], Sequence[ModelSource]],
        backends: Callable[[], Sequence[Backend]],
    ) -> None:
        self._sources = sources
        self._backends = backends
        self._cards: dict[str, ModelCard] = {}
        self._known: dict[Location, _Known] = {}
        self._found: tuple[tuple[ModelCard, ModelSource], ...] = ()
        self._rested = 0.0  # when the next scan may begin
        self._coming: asyncio.Task[None] | None = None
        self._disk = asyncio.Lock()  # held by scans and deletions

    @property
    def cards(self) -> list[ModelCard]:
        """All models by id, those that cannot be loaded included."""
        return list(self._cards.values())

    @property
    def is_scanned(self) -> bool:
        """Whether the disk was scanned already."""
        return bool(self._rested)

    def scan(self) -> None:
        """Scan the disk. Blocks; call in a thread."""
        begun = time.monotonic()
        before, self._known = self._known, {}
        self._show(
            (card, source)
            for source, location in self._locations()
            for card in self._cards_at(location, before)
        )
        ended = time.monotonic()
        self._rested = ended + (ended - begun) / MAX_SCANNING

    async def refresh(self) -> None:
        """Scan the disk again. Calls that come before the scan begins share it."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._scan_alone())
        await asyncio.shield(self._coming)

    def find(self, name: str, backend: str | None = None) -> ModelCard:
        """Return the model of this name: its id, in any case, or the id's last part if unique.

        :param backend: where several recognise the same files; None takes the first.
        :raises ModelNotFoundError: names the models there are.
        :raises NotFoundError: names the backends there are.
        """
        cards = self._cards
        if backend is not None:
            self._check_backend(backend)
            cards = _by_id(card for card, _ in self._found if card.backend == backend)
        if card := cards.get(name):
            return card
        wanted = name.casefold()
        matches = [card for key, card in cards.items() if key.casefold() == wanted]
        matches = matches or [
            card for key, card in cards.items() if key.casefold().endswith(f"/{wanted}")
        ]
        if len(matches) == 1:
            return matches[0]
        raise ModelNotFoundError(_not_found_text(name, cards, backend), param="model")

    def known_id(self, name: str) -> str:
        """Return the id of the model of this name, "" if there is none."""
        try:
            return self.find(name).id
        except ModelNotFoundError:
            return ""

    async def delete(self, name: str, check: Callable[[ModelCard], None]) -> ModelCard:
        """Delete a model's files.

        :param check: raises if the model is in use; after it, the model is not found any more.
        :raises ModelNotFoundError: names the models there are.
        :raises ForbiddenError: it lies in a place that belongs to another program.
        """
        async with self._disk:  # or a scan that goes on would bring the model back
            card = self.find(name)
            check(card)
            source = next(source for found, source in self._found if found == card)
            self._show(pair for pair in self._found if pair[0].id != card.id)
            try:
                await asyncio.to_thread(source.delete, card)
            finally:
                await asyncio.to_thread(self.scan)
        return card

    async def find_fresh(self, name: str, backend: str | None = None) -> ModelCard:
        """Like :meth:`find`, but scan the disk again before reporting that a model is missing or
        unusable: its file, or the package that it needs, may just have been installed.

        :raises ModelNotFoundError: names the models there are.
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

    async def _scan_alone(self) -> None:
        await asyncio.sleep(self._rested - time.monotonic())
        async with self._disk:
            self._coming = None
            await asyncio.to_thread(self.scan)

    def _show(self, found: Iterable[tuple[ModelCard, ModelSource]]) -> None:
        self._found = tuple(found)
        self._cards = _by_id(card for card, _ in self._found)

    def _locations(self) -> Iterable[tuple[ModelSource, Location]]:
        for source in self._sources():
            try:
                yield from ((source, location) for location in source.locations())
            # A source is a plugin's: it may fail in any way, and the others still count.
            except (Exception, SystemExit):
                log.exception("model_source_failed", source=source.name)

    def _cards_at(self, location: Location, known: Mapping[Location, _Known]) -> _Cards:
        """Return the cards of a location. Those of a location whose files did not change are kept,
        except for models that have a problem.
        """
        stamp = (*map(id, self._backends()), *_stamp(location))
        before = known.get(location)
        if before is None or before[0] != stamp or any(card.problem for card in before[1]):
            before = (stamp, tuple(self._identify(location)))
        self._known[location] = before
        return before[1]

    def _identify(self, location: Location) -> Iterable[ModelCard]:
        for backend in self._backends():
            try:
                yield from backend.identify(location)
            # A backend is a plugin's: it may fail in any way, and the others still count.
            except (Exception, SystemExit):
                log.exception("identify_failed", backend=backend.name, model=location.name)


def _stamp(location: Location) -> Iterator[int]:
    """Yield the sizes and times of a location's files."""
    for name in location.files:
        with suppress(OSError):
            status = os.stat(f"{location.folder}/{name}")  # noqa: PTH116 - a thousand times a scan
            yield status.st_size
            yield status.st_mtime_ns


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
