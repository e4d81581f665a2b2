"""Stored answers on disk: an SQLite file with a row for each answer, and its events in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import frozen

from lmx_kernel.config.private_database import open_database
from lmx_kernel.errors import ConflictError, NotFoundError
from lmx_kernel.interfaces import StoredAnswer
from lmx_kernel.stored.coding import (
    pack_events,
    pack_request,
    pack_usage,
    unpack_events,
    unpack_request,
    unpack_usage,
)
from lmx_kernel.stored.settings import StoredAnswerSettings
from lmx_kernel.types import Event, GenerationRequest, Usage

BATCH_EVENTS = 256
"""The most events that are written at once."""
PAGE_BATCHES = 16

# `doubt` is whether the answer ends daemons; `events` and `bytes` are of all its batches.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, surface TEXT NOT NULL, model TEXT NOT NULL,
    created_at REAL NOT NULL, ended_at REAL, outcome TEXT, problem TEXT NOT NULL,
    doubt INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
    usage BLOB, body BLOB NOT NULL, request BLOB
);
CREATE INDEX IF NOT EXISTS answers_by_end ON answers (ended_at, bytes);
CREATE TABLE IF NOT EXISTS events (
    answer TEXT NOT NULL, first INTEGER NOT NULL, batch BLOB NOT NULL, PRIMARY KEY (answer, first)
) WITHOUT ROWID;
"""


@frozen(kw_only=True)
class Page:
    """Some of an answer's events, and how it is. There are none only if no more were written."""

    events: tuple[Event, ...]
    outcome: str | None
    problem: str
    usage: Usage | None


@frozen(kw_only=True)
class Unfinished:
    """What is kept of an answer that has no end."""

    request: GenerationRequest
    created_at: float
    doubt: int
    usage: Usage | None
    events: tuple[Event, ...]


class AnswerFile:
    """Keeps answers. Used from one thread at a time.

    Every method raises :class:`sqlite3.Error` where the file cannot be used.

    :param path: of the file; see :func:`open_database`.
    :ivar count: answers that are kept.
    """

    def __init__(self, path: Path) -> None:
        self._database = open_database(path, _SCHEMA)
        self.count = self._total()[0]

    @property
    def changes(self) -> int:
        """A number that grows with each change of the file."""
        return self._database.total_changes

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # --- reading ---

    def find(self, answer_id: str, owner: str) -> StoredAnswer:
        """Return an answer.

        :raises NotFoundError: there is none of that id that belongs to ``owner``.
        """
        row = self._one(
            "SELECT id, owner, surface, body, model, created_at, ended_at, outcome, problem, usage"
            " FROM answers WHERE id = ? AND owner = ?",
            (answer_id, owner),
        )
        if row is None:
            raise _not_found(answer_id)
        *values, usage = row
        names = ("id", "owner", "surface", "body", "model", "created_at", "ended_at", "outcome")
        fields = dict(zip((*names, "problem"), values, strict=True))
        is_complete = fields["outcome"] is not None
        return StoredAnswer(**fields, usage=unpack_usage(usage) if is_complete else None)

    def page(self, answer_id: str, first: int) -> Page:
        """Return some events from ``first`` on, which is counted from 0 and begins a batch.

        :raises NotFoundError: there is no such answer.
        """
        with self._transaction("DEFERRED"):
            row = self._one(
                "SELECT outcome, problem, usage FROM answers WHERE id = ?", (answer_id,)
            )
            batches = self._database.execute(
                "SELECT batch FROM events WHERE answer = ? AND first >= ? ORDER BY first LIMIT ?",
                (answer_id, first, PAGE_BATCHES),
            ).fetchall()
        if row is None:
            raise _not_found(answer_id)
        return Page(
            events=_events(batches),
            outcome=row[0],
            problem=row[1],
            usage=unpack_usage(row[2]),
        )

    def unfinished(self) -> list[str]:
        """Return the ids of the answers that have no end, oldest first."""
        rows = self._database.execute(
            "SELECT id FROM answers WHERE outcome IS NULL ORDER BY created_at"
        )
        return [row[0] for row in rows]

    def resume(self, answer_id: str, *, doubt: int) -> Unfinished | None:
        """Return what an answer goes on from; None if it is complete or was forgotten.

        :param doubt: see :meth:`suspect`.
        """
        with self._transaction():
            self.suspect(answer_id, doubt)
            row = self._one(
                "SELECT request, created_at, doubt, usage FROM answers"
                " WHERE id = ? AND outcome IS NULL",
                (answer_id,),
            )
            batches = self._database.execute(
                "SELECT batch FROM events WHERE answer = ? ORDER BY first", (answer_id,)
            ).fetchall()
        if row is None:
            return None
        return Unfinished(
            request=unpack_request(row[0]),
            created_at=row[1],
            doubt=row[2],
            usage=unpack_usage(row[3]),
            events=_events(batches),
        )

    # --- writing ---

    def insert(
        self,
        answer: StoredAnswer,
        events: Sequence[Event] = (),
        request: GenerationRequest | None = None,
    ) -> None:
        """Keep a complete answer, or one to be computed by ``request``.

        :raises ConflictError: there is one of that id.
        """
        packed = None if request is None else pack_request(request)
        size = len(answer.body) + len(packed or b"")
        with self._transaction():
            if self._one("SELECT 1 FROM answers WHERE id = ?", (answer.id,)):
                raise ConflictError(f"there is an answer {answer.id[:64]} already")
            self._database.execute(
                "INSERT INTO answers (id, owner, surface, model, created_at, ended_at, outcome,"
                " problem, doubt, events, bytes, usage, body, request)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, 0, ?, ?, ?, ?)",
                (
                    *(answer.id, answer.owner, answer.surface, answer.model, answer.created_at),
                    *(answer.ended_at, answer.outcome, answer.problem),
                    *(size, pack_usage(answer.usage), answer.body, packed),
                ),
            )
            self._add(answer.id, 0, events)
        self.count += 1

    def append(
        self, answer_id: str, first: int, events: Sequence[Event], usage: Usage, *, gets_on: bool
    ) -> None:
        """Keep more of an answer's events.

        :param first: the number of the first of them.
        :param gets_on: it says more, so there is no doubt of it.
        :raises NotFoundError: the answer is complete or was forgotten, or has other events.
        """
        with self._transaction():
            self._add(answer_id, first, events)
            changed = self._database.execute(
                "UPDATE answers SET usage = ?, doubt = CASE WHEN ? THEN 0 ELSE doubt END"
                " WHERE id = ? AND outcome IS NULL",
                (pack_usage(usage), gets_on, answer_id),
            )
            if not changed.rowcount:
                raise _not_found(answer_id)

    def end(self, answer_id: str, ended_at: float, outcome: str, problem: str = "") -> None:
        """End an answer; has no effect if it is complete."""
        self._database.execute(
            "UPDATE answers SET ended_at = ?, outcome = ?, problem = ?,"
            " bytes = bytes - length(request), request = NULL WHERE id = ? AND outcome IS NULL",
            (ended_at, outcome, problem, answer_id),
        )

    def suspect(self, answer_id: str, doubt: int) -> None:
        """Note that if the daemon ends now, an answer may be why.

        :param doubt: is added to that of earlier times, until it gets on. Negative takes some back:
            the try ended for another reason, such as a queue without room, or others got on.
        """
        self._database.execute(
            "UPDATE answers SET doubt = max(0, doubt + ?) WHERE id = ?", (doubt, answer_id)
        )

    def forgive(self) -> None:
        """Note that no answer is why the daemon ends."""
        self._database.execute("UPDATE answers SET doubt = 0 WHERE outcome IS NULL")

    def delete(self, answer_id: str) -> None:
        """Forget an answer."""
        with self._transaction():
            self._delete(answer_id)
        self.count = self._total()[0]

    def forget(self, limits: StoredAnswerSettings, now: float) -> int:
        """Forget what is beyond the limits, and return how many answers that were.

        :param now: in seconds since the epoch.
        """
        with self._transaction():
            count, size = self._total()
            old = self._database.execute(
                "SELECT id, ended_at, bytes FROM answers WHERE ended_at IS NOT NULL"
                " ORDER BY ended_at"
            )
            forgotten = []
            for answer_id, ended_at, its_bytes in old:
                within = count <= limits.max_count and size <= limits.max_bytes
                if within and now - ended_at <= limits.max_age_s:
                    break
                forgotten.append(answer_id)
                count, size = count - 1, size - its_bytes
            for answer_id in forgotten:
                self._delete(answer_id)
        self.count = count
        return len(forgotten)

    # --- inside ---

    def _add(self, answer_id: str, first: int, events: Sequence[Event]) -> None:
        """Add batches of events, if they begin where the answer's events end."""
        size, rest = 0, iter(events)
        number = first
        while batch := list(islice(rest, BATCH_EVENTS)):
            data = pack_events(batch)
            self._database.execute("INSERT INTO events VALUES (?, ?, ?)", (answer_id, number, data))
            number, size = number + len(batch), size + len(data)
        changed = self._database.execute(
            "UPDATE answers SET events = ?, bytes = bytes + ? WHERE id = ? AND events = ?",
            (number, size, answer_id, first),
        )
        if not changed.rowcount:
            raise _not_found(answer_id)

    def _delete(self, answer_id: str) -> None:
        self._database.execute("DELETE FROM events WHERE answer = ?", (answer_id,))
        self._database.execute("DELETE FROM answers WHERE id = ?", (answer_id,))

    def _total(self) -> tuple[int, int]:
        count, size = self._one("SELECT count(*), coalesce(sum(bytes), 0) FROM answers")
        return count, size

    def _one(self, query: str, values: Sequence[object] = ()) -> Any:
        """Return the only row of a query, or None."""
        return self._database.execute(query, values).fetchone()

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """Make all changes or none."""
        self._database.execute(f"BEGIN {kind}")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # a full disk has ended it already
                self._database.execute("ROLLBACK")
            raise


def _events(batches: Iterable[tuple[bytes]]) -> tuple[Event, ...]:
    return tuple(event for (batch,) in batches for event in unpack_events(batch))


def _not_found(answer_id: str) -> NotFoundError:
    return NotFoundError(f"there is no stored answer {answer_id[:64]}")
