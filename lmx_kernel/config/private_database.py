"""SQLite files that only their owner may read."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """Open an SQLite file of mode 0600 in a folder of mode 0700; both are made when they are
    missing. It is in WAL mode: what was written survives the process, and a power cut tears
    nothing. A damaged file is put aside, and a new one is made.

    :param schema: statements that make what is missing.
    :returns: a connection without implicit transactions, for one thread at a time.
    :raises OSError: it cannot be made.
    :raises sqlite3.Error: it cannot be opened.
    """
    try:
        return _open(path, schema)
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise
        put_aside(path, str(error))
        return _open(path, schema)


def is_damaged(error: BaseException) -> bool:
    """Return whether ``error`` means that the file is not an intact database."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def damaged_path(path: Path) -> Path:
    """Return where a damaged database is put; what was there before is replaced."""
    return path.with_name(f"{path.name}.damaged")


def put_aside(path: Path, reason: str) -> None:
    """Rename a damaged database that nobody has open.

    :raises OSError: it cannot be renamed.
    """
    path.replace(damaged_path(path))
    for suffix in ("-wal", "-shm"):  # of the damaged one; they would be read into its successor
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    log.error("database_put_aside", file=path.name, reason=reason)


def _open(path: Path, schema: str) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # made by an older LMX, or on a disk without modes
        path.parent.chmod(0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with suppress(OSError):
        path.chmod(0o600)  # the files beside it get the same mode
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("PRAGMA checkpoint_fullfsync=ON")  # macOS, as config.disk_sync
        _check(database)
        database.executescript(schema)
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection) -> None:
    """Find damage that would show later only.

    :raises sqlite3.DatabaseError: there is some; its code says so.
    """
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
