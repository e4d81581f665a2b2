"""A base class for backends that know a model by the headers of its files.

Reading headers takes milliseconds to seconds, and they are asked for at each scan of the disk and
each estimate. So they are read once, and again when the size or the time of a file changed. Nothing
else remembers what a scan found. They are foreign data, so a child process reads them (see
:mod:`lmx_kernel.models.reader`); what it returns is all that is kept.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from attrs import evolve, frozen

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.models.reader import HeaderReader
from lmx_kernel.types import LoadOptions, Location, MemoryEstimate, ModelCard

MOST_REMEMBERED = 4096
"""Headers; the oldest are forgotten first."""

MAX_REASON_CHARS = 500

H = TypeVar("H")
T = TypeVar("T")
READER = HeaderReader()
_Stamp = tuple[Path, int, int] | None


@frozen
class Damaged:
    """Stands for headers that could not be read."""

    reason: str


class HeaderBackend(ABC, Generic[H]):
    """Implements ``identify``, ``verify`` and ``estimate`` of
    :class:`lmx_kernel.interfaces.Backend` for headers of type ``H``.

    Its class can be imported by name and made without arguments: a child process does so to read.

    :cvar name: the backend's name, and its format's.
    :cvar header_type: ``H``, an attrs class of plain data that msgspec can encode; paths are too.
        None reads in the daemon's own process, which is for files that are small whatever they say.
    """

    name: str
    header_type: type[H] | None = None

    def __init__(self) -> None:
        self._headers: dict[Path, tuple[tuple[_Stamp, ...], H | Damaged]] = {}

    # --- for the author

    @abstractmethod
    def paths(self, location: Location) -> Iterable[Path]:
        """Return the path of each model at ``location``, damaged ones too."""

    @abstractmethod
    def files(self, path: Path, location: Location) -> tuple[Path, ...]:
        """Return the files of the model at ``path``: what is read of it, and deleted with it; never
        one that could be another model's, or that the backend does not know.
        """

    @abstractmethod
    def read(self, path: Path) -> H:
        """Read and check the headers of the model at ``path``; return only what is used of them.

        :raises ModelUnusableError: missing, damaged, or unsafe for native code.
        """

    @abstractmethod
    def card(self, header: H) -> ModelCard:
        """Return a card; this class sets its id, aliases, path, files, age and problem."""

    @abstractmethod
    def problem(self, header: H) -> str | None:
        """Return why a model that is not damaged cannot be served, or None. Asked anew each time:
        a package that it needs may have been installed.
        """

    @abstractmethod
    def measure(
        self, header: H, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return what loading takes, rather too much than too little."""

    # --- for the kernel

    def identify(self, location: Location) -> list[ModelCard]:
        """Return a card for each model at ``location``; damaged ones carry a problem."""
        return [self._card(path, location) for path in self.paths(location)]

    def verify(self, card: ModelCard) -> None:
        """Read the headers again, whatever is remembered.

        :raises ModelUnusableError: missing, damaged, or of a kind that is not served.
        """
        problem = self.problem(self._read_apart(card.path))
        if problem is not None:
            raise ModelUnusableError(f"{card.id}: {problem}")

    def estimate(
        self, card: ModelCard, options: LoadOptions, settings: Mapping[str, Any]
    ) -> MemoryEstimate:
        """Return what loading takes.

        :param settings: the backend's own section of the config.
        :raises ModelUnusableError: the files are missing or damaged.
        """
        header = self.header(card.path, card.files)
        if isinstance(header, Damaged):
            raise ModelUnusableError(header.reason)
        return self.measure(header, options, settings)

    def header(self, path: Path, files: Iterable[Path]) -> H | Damaged:
        """Return the headers of the model at ``path``, or what is wrong with it.

        :param files: read again when one of these changed.
        """
        stamps = tuple(map(_stamp, files))
        known = self._headers.pop(path, None)
        if known is None or known[0] != stamps:
            known = stamps, self._read(path)
        self._headers[path] = known
        while len(self._headers) > MOST_REMEMBERED:
            del self._headers[next(iter(self._headers))]
        return known[1]

    def read_in_child(self, reader: type, path: Path, kind: type[T]) -> T:
        """Return what ``reader().read(path)`` returns, which a child process reads.

        :param reader: a class like those of backends: it can be imported by name.
        :param kind: of what it returns; anything that msgspec can encode.
        :raises ModelUnusableError: it raised that, or reading takes too much time or memory.
        """
        found: T = READER.read(reader, path, kind)
        return found

    def _read(self, path: Path) -> H | Damaged:
        try:
            return self._read_apart(path)
        except ModelUnusableError as error:
            return Damaged(error.message[:MAX_REASON_CHARS])

    def _read_apart(self, path: Path) -> H:
        if self.header_type is None:
            return self.read(path)
        return self.read_in_child(type(self), path, self.header_type)

    def _card(self, path: Path, location: Location) -> ModelCard:
        files = self.files(path, location)
        header = self.header(path, files)
        if isinstance(header, Damaged):
            return self._damaged_card(path, location, files, header.reason)
        card = self.card(header)
        return evolve(
            card,
            id=location.name,
            aliases=(f"{location.name}@{card.quantization}",) if card.quantization else (),
            path=path,
            files=files,
            problem=self.problem(header),
            added_at=_added_at(path, files),
        )

    def _damaged_card(
        self, path: Path, location: Location, files: tuple[Path, ...], problem: str
    ) -> ModelCard:
        return ModelCard(
            id=location.name,
            backend=self.name,
            path=path,
            format=self.name,
            architecture="unknown",
            size_bytes=sum(stamp[1] for stamp in map(_stamp, files) if stamp is not None),
            context_length=0,
            files=files,
            problem=problem,
            added_at=_added_at(path, files),
        )


def _added_at(path: Path, files: tuple[Path, ...]) -> float:
    stamp = _stamp(files[0] if files else path)
    return stamp[2] / 1e9 if stamp else 0.0


def _stamp(file: Path) -> _Stamp:
    """Return what changes when a file does; None if it is missing."""
    try:
        status = os.stat(file)  # noqa: PTH116 - a thousand times a scan
    except OSError:
        return None
    return file, status.st_size, status.st_mtime_ns
