"""The format of a file in the store: a header, the model's id, and the state of one block, or a
whole one.

All numbers are little-endian. The header holds: ``LMXSTATE``, the version, the length of the
model's id, the block's index in its chain (of a whole state, how many tokens it is of), its key,
the number of keys of its beginnings, the length of the state, the CRC-32 of the state, and the
CRC-32 of the header (that field left out), the id and the keys of the beginnings, which follow.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from lmx_kernel.engine.states import STATE_TOKENS
from lmx_kernel.prefixes.keys import PART_BYTES

MAGIC = b"LMXSTATE"
VERSION = 2
MAX_MODEL_BYTES = 1024
MAX_STATE_BYTES = 1 << 30
"""Many times what a block of the largest models takes: no header makes a reader take more memory.
"""

_HEADER = struct.Struct("<8sHHI16sHQI")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CHECKSUM.size


class DamagedEntryError(Exception):
    """A file is not what its name promises; the message says why."""


@frozen
class EntryHeader:
    """What stands in a file beside the state.

    :ivar model: its id in the catalogue.
    :ivar index: of the block in its chain.
    :ivar parts: keys of its beginnings, one after the other.
    """

    model: str
    index: int
    key: bytes
    parts: bytes
    state_bytes: int
    checksum: int


def write_entry(
    path: Path,
    model: str,
    index: int,
    key: bytes,
    state: bytes | bytearray | memoryview,
    parts: Sequence[bytes] = (),
) -> int:
    """Write a file that is complete or not there, readable by its owner only; return its size.

    It is not forced to the disk: a file that a power cut tears is recognised by its checksum.

    :raises OSError: it cannot be written; nothing is left behind.
    """
    name = model.encode()[:MAX_MODEL_BYTES]
    header = _HEADER.pack(
        *(MAGIC, VERSION, len(name), index, key, len(parts)),
        *(memoryview(state).nbytes, zlib.crc32(state)),
    )
    name += b"".join(parts)
    head = header + _CHECKSUM.pack(zlib.crc32(header + name)) + name
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600), "wb", buffering=0) as file:  # noqa: PTH123
            _write_all(file.fileno(), head)
            _write_all(file.fileno(), state)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return len(head) + memoryview(state).nbytes


def read_entry(path: Path, key: bytes, parts: Iterable[bytes] = ()) -> bytearray:
    """Return the state in a file.

    :param parts: keys of its beginnings, as its name says.
    :raises DamagedEntryError: the file is not the one of ``key`` and ``parts``, or not whole.
    :raises FileNotFoundError: there is none.
    :raises OSError: it cannot be read.
    """
    file = _open(path)
    try:
        header = _read_header(file)
        if (header.key, header.parts) != (key, b"".join(parts)):
            raise DamagedEntryError("it holds another key")
        state = bytearray(header.state_bytes)
        _read_into(file, memoryview(state))
    finally:
        os.close(file)
    if zlib.crc32(state) != header.checksum:
        raise DamagedEntryError("the checksum is wrong")
    return state


def read_header(path: Path) -> EntryHeader:
    """Return what stands in a file beside the state.

    :raises DamagedEntryError: the header is not one of this version, or the length is wrong.
    :raises OSError: it cannot be read.
    """
    file = _open(path)
    try:
        return _read_header(file)
    finally:
        os.close(file)


def _open(path: Path) -> int:
    """Open a file for reading; never what a link points to, and no pipe, which could block."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_symlink():
            raise DamagedEntryError("it is a symbolic link") from error
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise DamagedEntryError("it is no regular file")
    return file


def _read_header(file: int) -> EntryHeader:
    head = os.read(file, HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise DamagedEntryError("it does not begin like a state")
    _, version, name_bytes, index, key, parts, state_bytes, checksum = _HEADER.unpack_from(head)
    if version != VERSION:
        raise DamagedEntryError(f"it has version {version}, and this LMX reads {VERSION}")
    named_bytes = name_bytes + parts * PART_BYTES
    is_short = name_bytes <= MAX_MODEL_BYTES and parts <= STATE_TOKENS
    name = os.read(file, named_bytes) if is_short else b""
    (expected,) = _CHECKSUM.unpack_from(head, _HEADER.size)
    if zlib.crc32(head[: _HEADER.size] + name) != expected:
        raise DamagedEntryError("the checksum of its header is wrong")
    if state_bytes > MAX_STATE_BYTES:
        raise DamagedEntryError("it is larger than any state")
    if os.fstat(file).st_size != HEADER_BYTES + named_bytes + state_bytes:
        raise DamagedEntryError("its length is wrong")
    model = name[:name_bytes].decode(errors="replace")
    return EntryHeader(model, index, key, name[name_bytes:], state_bytes, checksum)


def _read_into(file: int, view: memoryview) -> None:
    while view:
        count = os.readv(file, [view])
        if not count:
            raise DamagedEntryError("its length is wrong")
        view = view[count:]


def _write_all(file: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(file, view) :]
