"""Keys of stored states.

A state depends on the model's files, on how the engine computes, and on every token before its
end. So the key of a block is a digest of the key of the block before it and of its own tokens, and
the chain begins with a digest of the model and the cache space. Equal beginnings have equal keys
and are stored once; whatever differs is not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmx_kernel.engine.states import STATE_TOKENS

KEY_BYTES = 16
PART_BYTES = 8
PART_TOKENS = 8
"""A prompt may leave a stored one within a block: its beginnings are known at every so many tokens.
"""

HEAD_BYTES = 1 << 20
"""Read of each file of a model: its header, without reading its weights."""


def model_identity(files: Iterable[Path], engine: str) -> bytes:
    """Return a digest of what the numbers of a model depend on.

    :param files: of the model; each counts with its name, size, time of change and beginning.
    :param engine: see :attr:`lmx_kernel.engine.PortableStates.identity`.
    :raises OSError: a file cannot be read.
    """
    digest = _digest(engine.encode(), str(STATE_TOKENS).encode())
    for file in sorted(files):
        stat = file.stat()
        with file.open("rb") as opened:
            head = hashlib.blake2b(opened.read(HEAD_BYTES)).digest()
        digest = _digest(digest, repr((file.name, stat.st_size, stat.st_mtime_ns)).encode(), head)
    return digest


def first_key(identity: bytes, cache_space: str) -> bytes:
    """Return the key that a chain begins with."""
    return _digest(identity, cache_space.encode())


def next_key(key: bytes, tokens: Sequence[int]) -> bytes:
    """Return the key of a block after the one of ``key``.

    :param tokens: of the block; any integers.
    """
    return _digest(key, repr(list(tokens)).encode())


def extend_keys(keys: list[bytes], first: bytes, tokens: Sequence[int], blocks: int) -> None:
    """Append to ``keys`` until there is one for each of the first ``blocks`` blocks of ``tokens``.

    :param first: see :func:`first_key`.
    """
    for index in range(len(keys), blocks):
        start = index * STATE_TOKENS
        before = keys[-1] if keys else first
        keys.append(next_key(before, tokens[start : start + STATE_TOKENS]))


def part_keys(before: bytes, tokens: Sequence[int]) -> list[bytes]:
    """Return the keys of beginnings of a block: of its first 8 tokens, of 16, and so on.

    :param before: the key of the block before.
    :param tokens: of the block, or as many as there are.
    """
    keys, key = [], before
    for end in range(PART_TOKENS, min(len(tokens), STATE_TOKENS - 1) + 1, PART_TOKENS):
        key = _digest(key, b"part", repr(list(tokens[end - PART_TOKENS : end])).encode())
        keys.append(key[:PART_BYTES])
    return keys


def whole_key(keys: list[bytes], first: bytes, tokens: Sequence[int], length: int) -> bytes:
    """Return the key of the whole state of the first ``length`` of ``tokens``.

    :param keys: of their first blocks, as far as they are known; those that are missing are added.
    """
    blocks = length // STATE_TOKENS
    extend_keys(keys, first, tokens, blocks)
    before = keys[blocks - 1] if blocks else first
    return _digest(before, b"whole", repr(list(tokens[blocks * STATE_TOKENS : length])).encode())


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
