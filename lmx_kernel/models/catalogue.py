"""The catalogue: every model on disk that some backend recognises."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from lmx_kernel.errors import ModelNotFoundError, NotFoundError
from lmx_kernel.interfaces import Backend, ModelSource
from lmx_kernel.models.names import Names, folded
from lmx_kernel.models.real_files import real_files
from lmx_kernel.models.source_scans import FoundModel, SourceScans
from lmx_kernel.plugins.calls import Watch, unwatched
from lmx_kernel.plugins.timeouts import in_thread
from lmx_kernel.types import DeletedModel, ModelCard, ModelName

LOOK_S = 5.0
"""How long a request for an unknown model waits for a scan; a slow disk takes minutes for one."""

MAX_LISTED = 50
MAX_SCAN_SHARE = 0.1  # the share of the time that scans may take, however often one is requested
_INSTANCE = re.compile(r":[1-9][0-9]?$")


class Preferences(Protocol):
    """What the owner of the models wants."""

    def names(self, cards: Mapping[str, ModelCard]) -> Mapping[str, ModelName]:
        """Return further names, folded."""
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
    """The models in all sources, as the backends recognise them. Scanned in threads; reading it
    does not wait for a scan. A source that hangs has no models until it answers.

    Every scan asks the backends about every location; they remember what is slow to read (see
    :class:`~lmx_kernel.models.headers.HeaderBackend`).

    :param sources: returns the current sources.
    :param backends: returns the current backends.
    :param preferences: of the owner; call :meth:`rearrange` when they have changed.
    :param watch: records the calls of sources.
    """

    def __init__(
        self,
        sources: Callable[[], Sequence[ModelSource]],
        backends: Callable[[], Sequence[Backend]],
        preferences: Preferences | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self._scans = SourceScans(backends, watch, self.scan)
        self._preferences = preferences or NoPreferences()
        self._sources = sources
        self._backends = backends
        self._cards: dict[str, ModelCard] = {}
        self._names = Names(())
        self._found: tuple[FoundModel, ...] = ()
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
        self._set_found(self._scans.scan(self._sources()))
        ended = time.monotonic()
        self._next_scan_at = ended + (ended - begun) / MAX_SCAN_SHARE

    async def refresh(self) -> None:
        """Scan the disk again; calls before a scan starts share it."""
        if self._pending_scan is None:
            self._pending_scan = asyncio.ensure_future(self._scan_alone())
            self._pending_scan.add_done_callback(self._forget_scan)
        await asyncio.shield(self._pending_scan)

    def find(self, name: str, backend: str | None = None) -> ModelCard:
        """Return the model of this name: one that the owner gave it or one of its profiles, or as
        :class:`~lmx_kernel.models.names.Names` finds it. ``name:2`` is the same model: some clients
        count its instances, and it has one.

        :param backend: chooses one if several recognise the same files; None takes the first.
        :raises ModelNotFoundError: there is none; names the models there are.
        :raises NotFoundError: there is no such backend; names the backends there are.
        """
        cards, names = self._cards, self._names
        if backend is not None:
            self._check_backend(backend)
            cards = _by_id(one.card for one in self._found if one.card.backend == backend)
            names = Names(cards.values())
        others = self._preferences.names(self._cards)
        for wanted in (name, _INSTANCE.sub("", name)):
            given = others.get(folded(wanted))
            if given is not None and given.card.id in cards:
                return cards[given.card.id]
            if card := names.find(wanted):
                return card
        raise ModelNotFoundError(_not_found_text(name, cards, backend), param="model")

    def known_id(self, name: str) -> str:
        """Return the id of the model of this name; "" if there is none."""
        try:
            return self.find(name).id
        except ModelNotFoundError:
            return ""

    async def delete(self, name: str, check: Callable[[ModelCard], None]) -> DeletedModel:
        """Delete a model's files.

        :param check: raises if one of the files is in use; after it returns, :meth:`find` does not
            find the model any more, nor any other with one of its files.
        :raises ModelNotFoundError: there is none; names the models there are.
        :raises ForbiddenError: it is in a folder that belongs to another program.
        """
        async with self._disk_lock:  # or a running scan would list the model again
            card = self.find(name)
            found = next(one for one in self._found if one.card == card)
            sharing = await in_thread(self._sharing_ids, card)
            check(card)
            self._set_found(one for one in self._found if one.card.id not in sharing)
            try:
                await in_thread(found.source.delete, card)
            finally:
                await in_thread(self.scan)
            return DeletedModel(card=card, left=await in_thread(self._left, found))

    async def find_fresh(self, name: str, backend: str | None = None) -> ModelCard:
        """Like :meth:`find`, but scan the disk again before a model is reported as missing or
        unusable: its file, or the package that it needs, may have been installed since. Waits for
        at most one scan and :data:`LOOK_S`; a longer scan goes on without it.

        :raises ModelNotFoundError: there is none; names the models there are.
        """
        with suppress(ModelNotFoundError):
            card = self.find(name, backend)
            if not card.problem:
                return card
        await self.look_again()
        return self.find(name, backend)

    async def look_again(self) -> None:
        """Scan the disk again, as :meth:`refresh`, but wait no longer than :data:`LOOK_S`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.refresh(), LOOK_S)

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
            await in_thread(self.scan)

    def _set_found(self, found: Iterable[FoundModel]) -> None:
        self._found = tuple(found)
        self.rearrange()

    def rearrange(self) -> None:
        """Choose anew which of several backends runs a model."""
        cards = [one.card for one in self._found]
        wanted = {card.id: self._preferences.backend_of(card) for card in cards}
        self._cards = _by_id(sorted(cards, key=lambda card: card.backend != wanted[card.id]))
        self._names = Names(self._cards.values())

    def _sharing_ids(self, card: ModelCard) -> set[str]:
        """Return the ids of the models that have one of a model's files, its own included."""
        files = real_files(card)
        return {one.card.id for one in self._found if files & real_files(one.card)} | {card.id}

    def _left(self, deleted: FoundModel) -> tuple[str, ...]:
        """Return which files of a deleted model's location are there and are no model's."""
        folder = deleted.location.folder
        models = {file for one in self._found for file in one.card.files}
        files = (folder / name for name in deleted.location.files)
        return tuple(file.name for file in files if file not in models and file.exists())


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
