"""Scans the sources of models, each in a thread of its own: one that hangs, such as a folder on a
dead network mount, hides its own models and delays nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog
from attrs import define, evolve, field, frozen

from lmx_kernel.interfaces import Backend, ModelSource
from lmx_kernel.models.templates import with_lent_templates
from lmx_kernel.plugins.calls import Watch
from lmx_kernel.types import Location, ModelCard

LIST_S = 1.0  # a source that names no further location for so long is not waited for
READ_S = 10.0  # nor one whose files cannot be read for so long
log = structlog.get_logger(__name__)


@frozen
class FoundModel:
    """A model, and where it was found."""

    card: ModelCard
    source: ModelSource
    location: Location


@define
class _Scan:
    """The scan of one source; its thread alone writes it.

    :ivar places: what was found, by what is equal for two paths to the same files.
    :ivar waits_since: monotonic; when the current call of a plugin began.
    :ivar limit_s: how long that call may take.
    :ivar is_late: it took longer, and nobody waits for it.
    """

    source: ModelSource
    places: list[tuple[object, list[FoundModel]]] = field(factory=list)
    waits_since: float = field(factory=time.monotonic)
    limit_s: float = field(factory=lambda: LIST_S)
    is_late: bool = False
    done: threading.Event = field(factory=threading.Event)


class SourceScans:
    """Scans sources, and remembers those that hang.

    :param backends: returns the current backends.
    :param watch: records the calls of sources.
    :param on_late: called, in any thread, when a source has answered that nobody waited for.
    """

    def __init__(
        self,
        backends: Callable[[], Sequence[Backend]],
        watch: Watch,
        on_late: Callable[[], None],
    ) -> None:
        self._backends = backends
        self._watch = watch
        self._on_late = on_late
        self._running: dict[str, _Scan] = {}
        self._lock = threading.Lock()

    def scan(self, sources: Sequence[ModelSource]) -> Iterator[FoundModel]:
        """Yield the models of all sources, each location once, in the first source that has it: two
        paths may be one folder, by a link or on a disk that does not tell upper from lower case.
        Those of a source that hangs are left out.
        """
        scans = [scan for source in sources if (scan := self._begin(source)) is not None]
        seen: set[object] = set()
        for scan in scans:
            if not self._wait(scan):
                continue
            for place, models in scan.places:
                if place not in seen:
                    seen.add(place)
                    yield from models

    def _begin(self, source: ModelSource) -> _Scan | None:
        """Begin the scan of a source; None if an earlier one still hangs."""
        with self._lock:
            before = self._running.get(source.name)
            if before is not None and before.is_late:
                log.warning("model_source_hangs", source=source.name)
                return None
            scan = self._running[source.name] = _Scan(source)
        threading.Thread(target=self._run, args=(scan,), name=source.name, daemon=True).start()
        return scan

    def _wait(self, scan: _Scan) -> bool:
        """Wait for a scan as long as it gets on; return whether it is complete."""
        while not scan.done.wait(0.05):
            if time.monotonic() - scan.waits_since < scan.limit_s:
                continue
            with self._lock:
                if not scan.done.is_set():
                    scan.is_late = True
                    log.warning("model_source_hangs", source=scan.source.name)
                    return False
        return True

    def _run(self, scan: _Scan) -> None:
        try:
            for location in self._locations(scan):
                scan.limit_s, scan.waits_since = READ_S, time.monotonic()
                models = [FoundModel(c, scan.source, location) for c in self._identify(location)]
                scan.places.append((_place(location), models))
                scan.limit_s, scan.waits_since = LIST_S, time.monotonic()
        # Sources are code of plugins: they may fail in any way, and the others still count.
        except (Exception, SystemExit):
            log.exception("model_source_failed", source=scan.source.name)
        with self._lock:
            scan.done.set()
            self._running.pop(scan.source.name, None)
        if scan.is_late:
            self._on_late()

    def _locations(self, scan: _Scan) -> Iterable[Location]:
        with self._watch("lmx_model_sources", scan.source.name, "locations"):
            for location in scan.source.locations():
                if not isinstance(location, Location):
                    raise TypeError(f"locations() gave {location!r}, and not a Location")
                yield location

    def _identify(self, location: Location) -> Iterable[ModelCard]:
        for backend in self._backends():
            try:
                cards = with_lent_templates(backend.identify(location))
                yield from (_also_named(card, location) for card in cards)
            # Backends are code of plugins: they may fail in any way, and the others still count.
            except (Exception, SystemExit):
                log.exception("identify_failed", backend=backend.name, model=location.name)


def _also_named(card: ModelCard, location: Location) -> ModelCard:
    """Return a card with the aliases of its location: ``alias`` for ``name``, and ``alias@label``
    for ``name@label``.
    """
    own = (card.id, *card.aliases)
    ends = [name.removeprefix(location.name) for name in own if name.startswith(location.name)]
    ends = [end for end in ends if end == "" or end.startswith("@")]
    further = [f"{alias}{end}" for alias in location.aliases for end in ends]
    return evolve(card, aliases=(*card.aliases, *further)) if further else card


def _place(location: Location) -> object:
    """Return what is equal for two paths to the same files."""
    try:
        status = location.folder.stat()
    except OSError:
        return location
    return status.st_dev, status.st_ino, location.files
